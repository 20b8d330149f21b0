"""Models built, loaded and run by their configs."""
