"""A plan applied over backends: readers, slots, hooks, load, dispatch."""
