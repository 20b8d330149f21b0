"""One model over several processes of torch.distributed: agreement, borders of stages, faults of ranks."""
