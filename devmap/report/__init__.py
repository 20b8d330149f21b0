"""How findings and plans are shown, one file a format."""
