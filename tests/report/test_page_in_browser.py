"""The pages of plans and diffs in a real browser.

What is drawn, searched, gone into, and read at any width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devmap.api.comparison import compare
from devmap.api.overview import ConfigOverview, overview_of
from devmap.inventory.model import Inventory, Tensor
from devmap.planning.why.overview import overview
from devmap.report.page.diff_page import render_diff_page
from devmap.report.page.plan_page import render_plan_page
from tests.planning.planning_models import config
from tests.report.browser import see

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

_CELLS = """
  const cells = [...document.querySelectorAll(".cell")].map((cell) => {
    const box = cell.getBoundingClientRect();
    return { path: cell.dataset.path, area: box.width * box.height, group: cell.classList.contains("group"),
             striped: getComputedStyle(cell).backgroundImage !== "none", hit: cell.classList.contains("hit"),
             dim: cell.classList.contains("dim") };
  });
"""


@pytest.fixture(scope="module")
def page() -> str:
    """Llama-3-70B on two cards of 24 GB: resident on both, the rest streamed."""
    return render_plan_page(
        overview_of(EXAMPLES / "llama-3-70b.2x4090.devmap.yaml", overrides=("machine=2x4090",))
    )


def seen(page: str, script: str, **size: Any) -> dict[str, Any]:
    found = see(page, script, **size)
    assert isinstance(found, dict)
    return found


def test_the_map_shows_every_layer_by_its_bytes_and_stripes_what_is_streamed(page: str) -> None:
    found = seen(page, f"{_CELLS} return {{ cells }};")["cells"]
    layers = {cell["path"]: cell for cell in found if cell["path"].startswith("model.layers.")}
    assert len(layers) == 80
    areas = [cell["area"] for cell in layers.values()]
    assert max(areas) < 1.05 * min(areas)  # the layers are of one size
    striped = {path for path, cell in layers.items() if cell["striped"]}
    assert striped == {f"model.layers.{at}" for at in range(21, 80)}
    whole = next(cell for cell in found if cell["path"] == "model")
    assert whole["group"]


def test_a_search_marks_what_it_finds_and_enter_goes_there(page: str) -> None:
    found = seen(
        page,
        f"""
        const search = document.getElementById("search");
        search.value = "layers.7";
        search.dispatchEvent(new Event("input"));
        const listed = document.querySelectorAll("#found button").length;
        const count = document.getElementById("count").value;
        {_CELLS}
        search.value = "layers.79.mlp";
        search.dispatchEvent(new Event("input"));
        search.dispatchEvent(new KeyboardEvent("keydown", {{ key: "Enter", cancelable: true }}));
        const told = document.getElementById("told").textContent;
        const trail = [...document.querySelectorAll("#trail button")].map((button) => button.textContent);
        return {{ cells, listed, count, told, trail, focus: document.activeElement.dataset.path }};
        """,
    )
    assert found["count"] == "11 found"
    assert found["listed"] == 11
    assert {cell["path"] for cell in found["cells"] if cell["hit"]} == {
        "model.layers.7",
        *(f"model.layers.{at}" for at in range(70, 80)),
    }
    assert next(cell for cell in found["cells"] if cell["path"] == "model.layers.1")["dim"]
    assert found["told"].startswith("model.layers.79.mlp")
    assert "cpu, streamed to and run on device 1" in found["told"]
    assert "room there: 2 slots x 2.1 GB" in found["told"]
    assert found["trail"] == ["whole model", "model", "layers", "79", "mlp"]
    assert found["focus"].startswith("model.layers.79.mlp.")


def test_the_keyboard_goes_in_along_and_out(page: str) -> None:
    found = seen(
        page,
        """
        const press = (key) => document.activeElement.dispatchEvent(
          new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
        const cell = (path) => document.querySelector(`.cell[data-path="${path}"]`);
        cell("model.layers.3").focus();
        const told = document.getElementById("told").textContent;
        cell("model.layers.3").click();
        const inside = [...document.querySelectorAll(".cell")].map((one) => one.dataset.path);
        const first = document.activeElement.dataset.path;
        press("ArrowRight");
        const second = document.activeElement.dataset.path;
        press("ArrowLeft");
        const back = document.activeElement.dataset.path;
        press("Escape");
        const out = document.querySelectorAll("#trail button").length;
        return { told, inside, first, second, back, out };
        """,
    )
    assert found["told"].startswith("model.layers.3LlamaDecoderLayer, 1.7 GB (1,711,308,800 bytes), device 0")
    assert {"model.layers.3.mlp", "model.layers.3.self_attn"} <= set(found["inside"])
    assert found["first"] != found["second"]
    assert found["first"] == found["back"]
    assert found["out"] == 3  # whole model, model, layers


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_has_no_sideways_scroll_and_readable_text(page: str, width: int, dark: bool) -> None:
    script = """
      const parts = (color) => color.match(/[0-9.]+/g).slice(0, 3).map(Number);
      const light = (color) => {
        const [red, green, blue] = parts(color).map((one) => {
          const share = one / 255;
          return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
      };
      const contrast = (one, other) => {
        const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
      };
      const style = (element) => getComputedStyle(element);
      const ground = style(document.body).backgroundColor;
      const solid = [...document.querySelectorAll(".cell:not(.group)")].filter(
        (cell) => style(cell).backgroundImage === "none");
      return {
        overflow: document.documentElement.scrollWidth - window.innerWidth,
        ink: contrast(style(document.body).color, ground),
        soft: Math.min(
          ...[...document.querySelectorAll(".soft")].map((one) => contrast(style(one).color, ground))),
        cells: Math.min(...solid.map((cell) => contrast(style(cell).color, style(cell).backgroundColor))),
        dark: light(ground) < 0.5,
      };
    """
    found = seen(page, script, width=width, dark=dark)
    assert found["overflow"] <= 0
    assert found["dark"] is dark
    # WCAG 2.2 asks for 4.5 to 1 for text.
    assert min(found["ink"], found["soft"], found["cells"]) >= 4.5


def test_the_predicted_pass_has_a_lane_for_each_resource(page: str) -> None:
    found = seen(
        page,
        """
        const section = document.querySelector('[aria-labelledby="pass-title"]');
        const lanes = [...section.querySelectorAll("svg")].map((lane) => [
          lane.getAttribute("aria-label"),
          [...lane.querySelectorAll("rect")].reduce((sum, box) => sum + box.getBoundingClientRect().width, 0)
            / lane.getBoundingClientRect().width,
        ]);
        return { lanes };
        """,
    )
    lanes = dict(found["lanes"])
    names = [name.split(",")[0] for name in lanes]
    assert names == ["device 0 computes", "device 1 computes", "copies to device 1"]
    shares = list(lanes.values())
    assert shares[2] > 0.9  # copies bind this pass
    assert shares[0] < 0.05


def test_the_page_of_a_diff_is_whole_at_400_pixels() -> None:
    sides = [str(EXAMPLES / f"llama-3-70b.{name}.devmap.yaml") for name in ("2x4090", "fastest")]
    page = render_diff_page(compare(*sides), "before", "after")
    found = seen(
        page,
        """
        return { overflow: document.documentElement.scrollWidth - window.innerWidth,
                 bars: document.querySelectorAll(".bar").length, text: document.body.innerText };
        """,
        width=400,
    )
    assert found["overflow"] <= 0
    assert found["bars"] == 6
    assert "5 runs of modules move" in found["text"]


def test_a_chain_of_modules_is_opened_down_to_its_many_children_and_no_further() -> None:
    blocks = [f"body.blocks.{at}" for at in range(5)]
    modules = {"": "Model", "body": "Body", "body.blocks": "ModuleList", **dict.fromkeys(blocks, "Block")}
    modules.update({f"{block}.linear": "Linear" for block in blocks})
    tensors = {
        name: Tensor(name, (8, 8), "float32") for block in blocks for name in (f"{block}.linear.weight",)
    }
    inventory = Inventory(modules, tensors)
    found = overview(config(max_memory={0: "1MB"}), inventory)
    page = render_plan_page(ConfigOverview("x.devmap.yaml", found, inventory, ()))
    drawn = seen(
        page,
        """return { paths: [...document.querySelectorAll(".cell")].map((cell) => cell.dataset.path) };""",
    )
    assert sorted(drawn["paths"]) == ["body", "body.blocks", *blocks]
