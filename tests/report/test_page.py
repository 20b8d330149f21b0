"""Pages as files: self-contained, whole HTML, safe for any name, with every byte of the model in the map."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.api.comparison import compare
from devmap.api.overview import ConfigOverview, overview_of
from devmap.errors import DevmapError
from devmap.inventory.model import Architecture, Inventory, Tensor
from devmap.planning.why.overview import overview
from devmap.report.markdown import render_diff_markdown, render_plan_markdown
from devmap.report.page.diff_page import render_diff_page
from devmap.report.page.plan_page import render_plan_page
from devmap.report.plan_bars import device_name
from tests.planning.planning_models import config, inventories, memories

if TYPE_CHECKING:
    from tests.conftest import Golden

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
CONFIGS = sorted(path for path in EXAMPLES.glob("*.devmap.yaml") if not path.name.endswith(".lock.yaml"))
_VOID = {"meta", "input", "br"}


class Elements(HTMLParser):
    """Fails where an element ends that is not the one that was opened last."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def elements(page: str) -> Elements:
    parsed = Elements()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == []
    return parsed


def tree_of(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="plan-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, object] = json.loads(found[1])
    return data


def leaves(node: list[object]) -> list[list[object]]:
    children = node[5]
    assert isinstance(children, list)
    return [leaf for child in children for leaf in leaves(child)] if children else [node]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_page_of_every_example_is_whole_and_holds_every_byte(path: Path) -> None:
    shown = overview_of(path)
    page = render_plan_page(shown)
    names = {name for name, _ in elements(page).attributes}
    assert not names & {"src", "href", "srcset", "data", "action"}  # nothing is fetched from anywhere
    tree = tree_of(page)["tree"]
    assert isinstance(tree, list)
    nbytes = sum(placement.nbytes for placement in shown.overview.plan.placements)
    assert tree[2] == nbytes
    if shown.overview.timeline is not None:
        assert "One pass, as predicted" in page


@settings(max_examples=30)
@given(st.data())
def test_the_map_gives_each_device_the_bytes_that_the_plan_does(data: st.DataObject) -> None:
    inventory = data.draw(inventories())
    try:
        found = overview(config(max_memory=data.draw(memories(inventory.nbytes))), inventory)
    except DevmapError:
        return  # no plan fits: nothing to draw
    page = render_plan_page(ConfigOverview("x.devmap.yaml", found, inventory, ()))
    tree = tree_of(page)
    places = tree["places"]
    assert isinstance(places, list)
    assert isinstance(tree["tree"], list)
    drawn: dict[tuple[int, int], int] = {}

    def walk(node: list[object]) -> int:
        """Own bytes of every node, which are its bytes without those of its children."""
        children = node[5]
        assert isinstance(children, list)
        assert isinstance(node[2], int)
        own = node[2] - sum(walk(child) for child in children)
        if own:
            assert isinstance(node[3], int)
            home, executes = places[node[3]]
            drawn[home, executes] = drawn.get((home, executes), 0) + own
        return node[2]

    walk(tree["tree"])
    assert isinstance(tree["devices"], list)
    order = {name: at for at, (name, _) in enumerate(tree["devices"])}
    planned: dict[tuple[int, int], int] = {}
    for one in found.plan.placements:
        key = (order[device_name(one.home, found.plan)], order[device_name(one.executes_on, found.plan)])
        planned[key] = planned.get(key, 0) + one.nbytes
    assert drawn == {key: nbytes for key, nbytes in planned.items() if nbytes}


def test_no_name_in_a_model_can_end_the_script_or_add_markup() -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    inventory = Inventory(
        {"": evil, evil: f"Block{evil}"},
        {f"{evil}.weight": Tensor(f"{evil}.weight", (4,), "float32")},
        (),
        (),
        Architecture("x", evil, {}),
    )
    found = overview(config(max_memory={0: 1000}), inventory)
    page = render_plan_page(ConfigOverview(f"{evil}.devmap.yaml", found, inventory, ()))
    names = {name for name, _ in elements(page).attributes}
    assert not names & {"src", "onerror"}
    assert page.count("<img") == 0
    assert evil in json.dumps(tree_of(page))


def test_a_tied_head_is_in_the_map_with_a_note() -> None:
    page = render_plan_page(overview_of(EXAMPLES / "gpt2-xl.1xt4.devmap.yaml"))
    assert "tied to transformer.wte.weight: its bytes are counted there" in page


def test_the_page_of_a_diff_is_whole_and_says_what_moves() -> None:
    page = render_diff_page(
        compare(EXAMPLES / "t5-11b.2xa100.devmap.yaml", EXAMPLES / "t5-11b.4xv100.devmap.yaml"), "a", "b"
    )
    elements(page)
    assert "device 3</strong>: not offered by a" in page
    same = EXAMPLES / "t5-11b.2xa100.devmap.yaml"
    assert "Nothing moves." in render_diff_page(compare(same, same), "a", "b")


def test_a_plan_as_markdown(golden: Golden) -> None:
    shown = overview_of(EXAMPLES / "llama-3-70b.2x4090.devmap.yaml")
    golden("plan.md", render_plan_markdown(shown.overview.plan, shown.inventory))


def test_a_diff_as_markdown(golden: Golden) -> None:
    sides = [EXAMPLES / f"llama-3-70b.{name}.devmap.yaml" for name in ("2x4090", "fastest")]
    golden("plan-diff.md", render_diff_markdown(compare(*sides)))


def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_head() -> None:
    for path in CONFIGS:
        shown = overview_of(path)
        columns = 0
        for line in render_plan_markdown(shown.overview.plan, shown.inventory).splitlines():
            if not line.startswith("|"):
                columns = 0
                continue
            cells = len(re.findall(r"(?<!\\)\|", line))
            columns = columns or cells
            assert cells == columns, line
