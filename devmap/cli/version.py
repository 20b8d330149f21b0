"""The version of the installed distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

__all__ = ["version"]


def version() -> str:
    """Return the version as `pip` knows it; `unknown` in a tree that was never installed."""
    try:
        return distribution("torch-devmap").version
    except PackageNotFoundError:
        return "unknown"
