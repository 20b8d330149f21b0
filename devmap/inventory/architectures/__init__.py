"""The built-in table of architectures: one JSON file per model type, written by scripts/make_architectures.py."""
