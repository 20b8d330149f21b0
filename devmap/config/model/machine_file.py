"""Machine profiles in files: what `devmap doctor` writes and a config's `machine` may name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.model.placement_config import MachineProfile
from devmap.config.model.shape import validate_model
from devmap.config.yaml.reader import read_yaml
from devmap.errors import ConfigError

if TYPE_CHECKING:
    from devmap.config.yaml.faults import Fault

__all__ = ["parse_machine"]


def parse_machine(content: bytes, name: str) -> MachineProfile:
    """Return the machine profile in `content`; `name` is the file's name for messages.

    Raises:
        ConfigError: listing every fault with its place.
    """
    parsed = read_yaml(content, name)
    faults: tuple[Fault, ...] = parsed.faults
    profile: MachineProfile | None = None
    if parsed.data is not None:
        profile, shape_faults = validate_model(MachineProfile, parsed.data, parsed.positions)
        faults = (*faults, *shape_faults)
    if profile is None or faults:
        count = f"{len(faults)} problem{'s' if len(faults) != 1 else ''}"
        raise ConfigError(f"{name}: {count}", problems=faults, help="`devmap doctor` writes such a file")
    return profile
