"""No plan fits: what is missing, and the cheapest changes that would make one fit."""
