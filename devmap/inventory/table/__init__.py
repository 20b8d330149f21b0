"""The built-in table of architectures, made concrete with a config and a checkpoint's headers."""
