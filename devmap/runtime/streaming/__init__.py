"""Blocks that are brought into slots while the model runs."""
