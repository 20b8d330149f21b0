"""Locks written, compared, and looked up in git."""
