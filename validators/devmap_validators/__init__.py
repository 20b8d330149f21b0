"""The built-in rule pack: rules by what they are about, check_device_map, and the policy packs."""
