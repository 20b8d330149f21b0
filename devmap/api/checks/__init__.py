"""Configs checked, mended and watched."""
