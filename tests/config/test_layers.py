"""extends, profiles and --set: who wins, where it is reported, what paths start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devmap.config.document import load_document, parse_document, read_config
from devmap.config.values.device import CPU, Device, Tier
from devmap.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from devmap.config.document import Document

BASE = (
    "version: 1\nmodel: {checkpoint: ./weights, manifest: m.yaml}\nmax_memory: {0: 20GB, "
    "cpu: 100GB}\npolicies: [production, ./own.yaml]\n"
)
GPU = Device(Tier.ACCELERATOR, 0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "team" / "jobs").mkdir(parents=True)
    (tmp_path / "base.devmap.yaml").write_text(BASE)
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def places(document: Document) -> list[tuple[str, str, int, int]]:
    return [
        (fault.code, Path(fault.position.file).name, fault.position.start.line, fault.position.start.column)
        for fault in document.faults
    ]


def test_the_child_wins_mappings_merge_and_lists_replace(tree: Path) -> None:
    path = write(
        tree, "child.devmap.yaml", "extends: base.devmap.yaml\nmax_memory: {0: 10GB}\npolicies: [inference]\n"
    )
    config = read_config(path)
    assert config.max_memory == {GPU: 10 * 10**9, CPU: 100 * 10**9}
    assert config.policies == ["inference"]
    assert config.version == 1


def test_relative_paths_of_a_parent_start_from_the_parents_folder(tree: Path) -> None:
    path = write(
        tree / "team" / "jobs",
        "child.devmap.yaml",
        "extends: ../../base.devmap.yaml\noffload: {folder: ./spill}\n",
    )
    config = read_config(path)
    assert config.model.checkpoint == "../../weights"
    assert config.model.manifest == "../../m.yaml"
    assert config.policies == ["production", "../../own.yaml"]
    assert config.offload.folder == "./spill"
    assert config.folder == path.parent


def test_relative_paths_inside_a_parents_profile_are_turned_too(tree: Path) -> None:
    write(tree, "base.devmap.yaml", BASE + "profiles: {p: {model: {manifest: p.yaml}}}\n")
    path = write(tree / "team", "child.devmap.yaml", "extends: ../base.devmap.yaml\n")
    assert read_config(path, "p").model.manifest == "../p.yaml"


def test_a_chain_of_parents_is_followed(tree: Path) -> None:
    write(tree / "team", "middle.devmap.yaml", "extends: ../base.devmap.yaml\nmax_memory: {cpu: 50GB}\n")
    path = write(
        tree / "team" / "jobs", "child.devmap.yaml", "extends: ../middle.devmap.yaml\nmax_memory: {0: 1GB}\n"
    )
    config = read_config(path)
    assert config.max_memory == {GPU: 10**9, CPU: 50 * 10**9}
    assert config.model.checkpoint == "../../weights"


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_circle_of_parents_is_a_fault(tree: Path, names: list[str]) -> None:
    for name, parent in zip(names, [*names[1:], names[0]], strict=True):
        write(tree, f"{name}.devmap.yaml", f"extends: {parent}.devmap.yaml\n")
    document = load_document(tree / "a.devmap.yaml")
    assert places(document) == [("DM113", f"{names[-1]}.devmap.yaml", 1, 10)]


def test_an_endless_chain_of_parents_is_a_fault(tree: Path) -> None:
    for number in range(30):
        write(tree, f"c{number}.devmap.yaml", f"extends: c{number + 1}.devmap.yaml\n")
    assert [place[0] for place in places(load_document(tree / "c0.devmap.yaml"))] == ["DM113"]


def test_a_parent_that_is_not_there_is_the_only_fault(tree: Path) -> None:
    path = write(tree, "child.devmap.yaml", "extends: ../no.devmap.yaml\n")
    document = load_document(path)
    assert places(document) == [("DM112", "child.devmap.yaml", 1, 10)]
    assert document.config is None


@pytest.mark.parametrize("name", [".", "'a\\0b'", '"a\\u0001"'])
def test_odd_names_of_parents_are_faults(tree: Path, name: str) -> None:
    document = load_document(write(tree, "child.devmap.yaml", f"extends: {name}\n"))
    assert document.faults


def test_what_is_wrong_in_a_parent_is_placed_in_the_parents_file(tree: Path) -> None:
    write(tree, "base.devmap.yaml", "version: 1\nmodel: {}\nmax_memory:\n  0: 8gb\n  0: 9GB\n")
    path = write(tree, "child.devmap.yaml", "extends: base.devmap.yaml\noffload: {x: 1}\n")
    document = load_document(path)
    assert sorted(places(document)) == [
        ("DM006", "base.devmap.yaml", 5, 3),
        ("DM101", "child.devmap.yaml", 2, 11),
        ("DM104", "base.devmap.yaml", 4, 6),
    ]
    assert [Path(source.name).name for source in document.sources] == [
        "child.devmap.yaml",
        "base.devmap.yaml",
    ]


def test_a_parent_that_is_no_yaml_gives_its_own_fault_alone(tree: Path) -> None:
    write(tree, "base.devmap.yaml", "version: [1\n")
    document = load_document(write(tree, "child.devmap.yaml", "extends: base.devmap.yaml\n"))
    assert [place[:2] for place in places(document)] == [("DM004", "base.devmap.yaml")]


def test_a_wrong_value_that_the_child_replaces_is_no_fault(tree: Path) -> None:
    write(tree, "base.devmap.yaml", "version: 1\nmodel: {}\nmax_memory: {0: 8gb}\n")
    document = load_document(
        write(tree, "child.devmap.yaml", "extends: base.devmap.yaml\nmax_memory: {0: 8GB}\n")
    )
    assert document.faults == ()


PROFILES = """\
version: 1
model: {}
max_memory: {0: 20GB, cpu: 100GB}
profiles:
  laptop: {max_memory: {cpu: 12GB}, device_map: {"": balanced}}
  broken: {max_memory: {cpu: 12gb}, extends: x, devise_map: auto}
"""


def test_a_profile_is_laid_over_its_config() -> None:
    text = PROFILES.replace("  broken: {max_memory: {cpu: 12gb}, extends: x, devise_map: auto}\n", "")
    document = parse_document(text.encode(), "x.devmap.yaml", profile="laptop")
    assert document.config is not None
    assert document.config.max_memory == {CPU: 12 * 10**9, GPU: 20 * 10**9}
    assert document.position(("max_memory", "cpu")).start.line == 5
    assert document.position(("max_memory", "0")).start.line == 3


def test_faults_of_every_profile_are_placed_inside_it_whether_it_is_picked_or_not() -> None:
    for profile in (None, "laptop"):
        document = parse_document(PROFILES.encode(), "x.devmap.yaml", profile=profile)
        assert sorted(places(document)) == [
            ("DM101", "x.devmap.yaml", 6, 37),
            ("DM101", "x.devmap.yaml", 6, 49),
            ("DM104", "x.devmap.yaml", 6, 30),
        ]
        assert {fault.path[:2] for fault in document.faults} == {("profiles", "broken")}


def test_an_unknown_profile_names_the_near_one() -> None:
    (fault,) = parse_document(
        b"version: 1\nmodel: {}\nprofiles: {laptop: {}}\n", "x", profile="labtop"
    ).faults
    assert (fault.code, fault.label, fault.position.start.line) == ("DM111", "did you mean 'laptop'?", 3)


def test_overrides_change_values_at_any_depth() -> None:
    overrides = [
        "max_memory.cpu=64GB",
        "device_map[model.layers[0-3]]=cpu",
        "workload.batch_size=4",
        "device_map.lm_head=0",
    ]
    document = parse_document(b"version: 1\nmodel: {}\nmax_memory: {0: 1GB}\n", "x", overrides=overrides)
    assert document.config is not None
    assert document.config.max_memory == {GPU: 10**9, CPU: 64 * 10**9}
    assert document.config.device_map == {"model.layers[0-3]": CPU, "lm_head": GPU}
    assert document.config.workload is not None
    assert document.config.workload.batch_size == 4


def test_a_mapping_of_overrides_means_what_its_texts_mean(tmp_path: Path) -> None:
    path = write(tmp_path, "c.devmap.yaml", BASE)
    texts = [
        "max_memory.cpu=64GB",
        "headroom=null",
        "device_map={lm_head: 1, '': auto}",
        "model.dtype=float16",
    ]
    mapping = {
        "max_memory.cpu": "64GB",
        "headroom": None,
        "device_map": {"lm_head": 1, "": "auto"},
        "model.dtype": "float16",
    }
    assert read_config(path, overrides=mapping) == read_config(path, overrides=texts)
    assert read_config(path, overrides={"max_memory": {0: "5GB"}}).max_memory == {GPU: 5 * 10**9}


@pytest.mark.parametrize("overrides", ["max_memory.cpu=64GB", {0: "5GB"}])
def test_overrides_that_are_neither_texts_nor_a_mapping_of_paths_are_a_usage_error(
    tmp_path: Path, overrides: object
) -> None:
    path = write(tmp_path, "c.devmap.yaml", BASE)
    with pytest.raises(UsageError, match="overrides"):
        read_config(path, overrides=overrides)  # type: ignore[arg-type]  # what a user may pass


def test_a_wrong_override_is_placed_in_the_override() -> None:
    (fault,) = parse_document(b"version: 1\nmodel: {}\n", "x", overrides=["max_memory.cpu=8gb"]).faults
    assert (fault.code, fault.position.file) == ("DM104", "--set max_memory.cpu=8gb")


@pytest.mark.parametrize(
    "override",
    [
        "",
        "=",
        "x",
        "a.b",
        "[a=1",
        "a]=1",
        "max_memory=[",
        "model.checkpoint.x=1",
        "version.x=1",
        "a=1\n---\nb: 2",
        "a=1\nb: 2",
        "extends=x",
        "=1",
    ],
)
def test_an_override_that_is_none_is_a_usage_error(override: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_document(b"version: 1\nmodel: {checkpoint: x}\n", "x", overrides=[override])
    assert caught.value.help


def test_read_config_raises_one_error_with_every_problem(tmp_path: Path) -> None:
    path = write(tmp_path, "x.devmap.yaml", "version: 2\nmodle: {}\n")
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert {problem.code for problem in caught.value.problems} == {"DM109", "DM101", "DM102"}
    with pytest.raises(UsageError):
        read_config(tmp_path / "no.devmap.yaml")
