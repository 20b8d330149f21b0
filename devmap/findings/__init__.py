"""What a check says and what a check is."""
