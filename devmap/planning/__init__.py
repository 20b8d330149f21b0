"""Partition algorithms, strategies, reserves and explanation: pure functions over an inventory."""
