"""Find where every unit lives: exact partitions, filling, spilling, slots."""
