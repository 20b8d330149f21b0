"""What Accelerate's users pass is taken, and means the same.

What is ambiguous or wrong is refused by name.
"""

from __future__ import annotations

from typing import Any

import accelerate.utils
import pytest
import torch
from accelerate.utils import CustomDtype
from torch import nn

import devmap
from devmap.errors import ResolutionError, UsageError
from tests.parity.parity_models import Block, Leaf, chain, homes

SIZES = ["1KB", "1kB", "1KiB", "1 KiB", "2MB", "1GB", "20GiB", 0, 1000]


@pytest.mark.parametrize("size", SIZES)
def test_a_size_means_what_accelerate_takes_it_for(size: int | str) -> None:
    expected = accelerate.utils.convert_file_size_to_int(size)
    assert devmap.get_balanced_memory(chain(1), {"cpu": size})["cpu"] == expected


@pytest.mark.parametrize(
    "size", ["1gb", "8Gb", "1kb", "-1GB", "much", "", "nan", -1, True, float("nan"), float("inf"), None]
)
def test_a_size_that_is_ambiguous_or_none_is_refused_by_the_device_s_name(size: Any) -> None:
    with pytest.raises(devmap.DevmapError, match="max_memory of 0"):
        devmap.infer_auto_device_map(chain(1), {0: size})


def test_a_float_which_a_share_of_memory_gives_is_rounded_down() -> None:
    budgets: dict[int | str, Any] = {0: 0.9 * 1000, "cpu": 10_000}
    assert devmap.infer_auto_device_map(chain(900), budgets) == {"": 0}
    assert devmap.infer_auto_device_map(chain(901), budgets) == {"": "cpu"}


@pytest.mark.parametrize("key", ["gpu", "cuda:x", -1, 1.5, None, "cpu:1"])
def test_a_key_that_is_no_device_is_refused(key: Any) -> None:
    with pytest.raises(devmap.DevmapError):
        devmap.infer_auto_device_map(chain(1), {key: 100})


@pytest.mark.parametrize("key", [0, 3, "cpu", "disk", "mps"])
def test_the_values_of_a_map_are_the_keys_of_max_memory(key: int | str) -> None:
    assert devmap.infer_auto_device_map(chain(5, 5), {key: 100}) == accelerate.utils.infer_auto_device_map(
        chain(5, 5), {key: 100}
    )


def test_the_order_of_max_memory_s_keys_does_not_count() -> None:
    one = devmap.infer_auto_device_map(chain(5, 5, 5, 5), {"disk": 20, "cpu": 5, 1: 5, 0: 12})
    other = devmap.infer_auto_device_map(chain(5, 5, 5, 5), {0: 12, 1: 5, "cpu": 5, "disk": 20})
    assert one == other


@pytest.mark.parametrize("whole", ["Block", ["Block"], ("Block",), {"Block"}, ["Block", "Absent"]])
def test_classes_to_keep_whole_come_as_text_list_tuple_or_set(whole: Any) -> None:
    block = Block()
    block.a, block.b = Leaf(5), Leaf(5)
    model = nn.Sequential(Leaf(3), block)
    assert devmap.infer_auto_device_map(model, {0: 8, 1: 10}, whole) == {"0": 0, "1": 1}
    assert devmap.infer_auto_device_map(model, {0: 8, 1: 10}, None) == {"0": 0, "1.a": 0, "1.b": 1}


@pytest.mark.parametrize("dtype", [torch.float16, "float16", "torch.float16"])
def test_a_dtype_comes_as_torch_s_or_by_its_name(dtype: Any) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    assert devmap.infer_auto_device_map(model, {0: 400}, dtype=dtype) == {"": 0}


def test_dtypes_of_single_tensors_are_counted_like_accelerate_s() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    special = {"0.weight": torch.int8, "1.weight": torch.float16}
    assert devmap.get_balanced_memory(model, {0: 1000}, special_dtypes=special) == {0: 300}
    assert accelerate.utils.compute_module_sizes(model, special_dtypes=special)[""] == 300


@pytest.mark.parametrize(
    "value", [0, "cuda:0", "cpu", "disk", torch.device("cpu"), torch.device("cuda", 1), torch.device("cuda")]
)
def test_a_map_s_values_may_be_all_that_accelerate_s_check_takes(value: Any) -> None:
    model = chain(5, 5)
    accelerate.utils.check_device_map(model, {"": value})
    devmap.check_device_map(model, {"": value})


def test_a_model_on_meta_and_a_real_one_have_the_same_map() -> None:
    real = nn.Sequential(nn.Linear(10, 10), nn.BatchNorm1d(10), nn.Linear(10, 10))
    with torch.device("meta"):
        meta = nn.Sequential(nn.Linear(10, 10), nn.BatchNorm1d(10), nn.Linear(10, 10))
    budgets: dict[int | str, int | str] = {0: 700, 1: 500, "cpu": 1000}
    assert devmap.infer_auto_device_map(real, budgets) == devmap.infer_auto_device_map(meta, budgets)


def test_an_unclean_map_says_the_same_with_a_key_a_module() -> None:
    model = chain(5, 5, 5)
    clean = devmap.infer_auto_device_map(model, {0: 10, 1: 5})
    unclean = devmap.infer_auto_device_map(model, {0: 10, 1: 5}, clean_result=False)
    assert list(unclean) == ["m0", "m1", "m2"]
    assert homes(model, clean) == homes(model, unclean)


@pytest.mark.parametrize("special", [None, {"0.weight": torch.float32}, {"0.weight": CustomDtype.INT2}])
@pytest.mark.parametrize(
    "dtype", [None, torch.float16, "bfloat16", CustomDtype.FP8, CustomDtype.INT4, CustomDtype.INT2]
)
def test_dtypes_count_as_in_accelerate(dtype: Any, special: dict[str, Any] | None) -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 16, bias=False), nn.Linear(16, 8))
    sizes = accelerate.utils.compute_module_sizes(model, dtype=dtype, special_dtypes=special)
    found = devmap.get_balanced_memory(model, {0: 10**6}, dtype=dtype, special_dtypes=special)
    assert found == {0: sizes[""]}
    keys = {"dtype": dtype, "special_dtypes": special}
    assert devmap.infer_auto_device_map(model, {0: sizes[""]}, **keys) == {"": 0}
    with pytest.raises(ResolutionError):
        devmap.infer_auto_device_map(model, {0: sizes[""] - 1}, **keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"dtype": "bfloat17"}, "'bfloat17' is not a torch dtype"),
        ({"special_dtypes": {"0.weight": "int9"}}, "'int9' is not"),
        ({"special_dtypes": {"0.wait": torch.float32}}, "no tensor '0.wait'"),
    ],
)
def test_a_dtype_or_name_that_is_not_there_is_refused_by_name(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        devmap.infer_auto_device_map(nn.Sequential(nn.Linear(2, 2)), {0: 1000}, **keys)
