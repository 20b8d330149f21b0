"""The one YAML reader and writer: plain data with the place of every node."""
