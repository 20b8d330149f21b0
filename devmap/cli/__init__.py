"""One file a command: parses, calls, returns an exit status."""
