"""`devmap schema`: the JSON Schema of configs."""

from __future__ import annotations

import click

from devmap.config.model.json_schema import config_schema, render_schema

__all__ = ["command"]


@click.command("schema")
def command() -> int:
    """Print the JSON Schema (draft 2020-12) of *.devmap.yaml, for editors and check-jsonschema."""
    click.echo(render_schema(config_schema()), nl=False)
    return 0
