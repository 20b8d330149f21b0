"""One model over the accelerators of several nodes: contiguous stages, each planned within its own node."""
