"""What a person writes: the config's model, sizes, devices, and the one YAML reader."""
