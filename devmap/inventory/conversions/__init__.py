"""From the names and shapes of a checkpoint to those of the running model, without its numbers."""
