"""Explain why a module lives where it does."""
