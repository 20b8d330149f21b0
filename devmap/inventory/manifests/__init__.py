"""Inventories as files that are checked in."""
