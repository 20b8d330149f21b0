"""The resolved result as data, its lock file, and the difference between two."""
