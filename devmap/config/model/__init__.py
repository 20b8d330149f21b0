"""The config's model, its JSON Schema, and what is wrong with its shape."""
