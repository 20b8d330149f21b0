"""`device_map: fastest`: predict the time of one pass and search for the placement with the least."""
