"""The built-in rule pack: one module a rule, check_device_map, and the policy packs."""
