"""What several rules share: the map worked out once, capacities, groups of names, policies."""
