"""Write a solution down as a plan, say why, and verify it."""
