"""Inventories of live modules, and what they say of a checkpoint."""
