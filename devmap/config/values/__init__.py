"""Values as people write them: sizes, devices, strategies; each parsed once."""
