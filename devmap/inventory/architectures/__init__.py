"""The built-in table of architectures.

One JSON file per model type, written by scripts/make_architectures.py.
"""
