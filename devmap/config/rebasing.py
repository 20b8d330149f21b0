"""Relative paths of one file as another file has to write them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmap.config.yaml_reader import Plain

__all__ = ["rebased"]


def rebased(config: dict[str, Plain], parent: Path, child: Path) -> dict[str, Plain]:
    """A config's plain data, its relative paths seen from the folder `child` instead of `parent`; profiles too.

    A word that may also be a name (a hub id, a built-in policy, a machine's preset) is a path where it begins with a dot,
    or where such a file is there.
    """
    if parent.resolve() == child.resolve():
        return config

    def moved(value: Plain, *, may_be_name: bool) -> Plain:
        if not isinstance(value, str) or Path(value).is_absolute() or value.startswith("~"):
            return value
        if may_be_name and not value.startswith(("./", "../")) and not (parent / value).exists():
            return value
        return os.path.relpath(parent / value, child)

    result = dict(config)
    model, offload, policies = config.get("model"), config.get("offload"), config.get("policies")
    if isinstance(model, dict):
        names = {"checkpoint": True, "manifest": False}
        result["model"] = {key: moved(value, may_be_name=names[key]) if key in names else value for key, value in model.items()}
    if isinstance(offload, dict) and "folder" in offload:
        result["offload"] = {**offload, "folder": moved(offload["folder"], may_be_name=False)}
    if isinstance(policies, list):
        result["policies"] = [moved(policy, may_be_name=True) for policy in policies]
    if "machine" in config:
        result["machine"] = moved(config["machine"], may_be_name=True)
    profiles = config.get("profiles")
    if isinstance(profiles, dict):
        result["profiles"] = {name: rebased(part, parent, child) if isinstance(part, dict) else part for name, part in profiles.items()}
    return result
