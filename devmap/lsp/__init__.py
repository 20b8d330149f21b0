"""The language server: findings, hover, completion and quick fixes for `*.devmap.yaml` in an editor."""
