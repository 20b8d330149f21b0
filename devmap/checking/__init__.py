"""The engine: picks rules, runs them, applies suppressions and policies."""
