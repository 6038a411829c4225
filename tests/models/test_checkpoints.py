"""Files of weights to tensors: every format that is accepted, and errors for everything else."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rediffuse.errors import CheckpointError, InputError
from rediffuse.models.checkpoints import compare, load_into, read_state_dict, write_state_dict

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -1.0])}


class Touch:
    """A pickle of this creates a file when it is loaded by a reader that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        OrderedDict(STATE),
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE, "optimizer": {"lr": 0.1}},
        {f"module.{name}": tensor for name, tensor in STATE.items()},
        {"state_dict": {f"module.{name}": tensor for name, tensor in STATE.items()}},
    ],
)
def test_a_state_dict_is_found_under_wrappers_and_parallel_prefixes(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    assert same(read_state_dict(tmp_path / "weights.pt"), STATE)


def test_the_format_before_torch_1_6_is_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert same(read_state_dict(tmp_path / "old.pt"), STATE)


def test_safetensors_return_what_was_written(tmp_path: Path) -> None:
    write_state_dict(tmp_path / "model.safetensors", STATE)
    assert same(read_state_dict(tmp_path / "model.safetensors"), STATE)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickle_that_needs_code_is_refused_and_not_run(tmp_path: Path, wrapped: bool) -> None:
    bait = tmp_path / "ran"
    content = {"state_dict": STATE, "extra": Touch(bait)}
    if wrapped:
        torch.save(content, tmp_path / "evil.pt")
    else:
        (tmp_path / "evil.pt").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(CheckpointError, match=r"evil\.pt: ") as caught:
        read_state_dict(tmp_path / "evil.pt")
    assert not bait.exists()
    assert "\n" not in str(caught.value)


def test_the_refusal_names_what_would_run(tmp_path: Path) -> None:
    torch.save({"extra": Touch(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match=r"refused, because loading it would run pathlib\S*\.touch|getattr"):
        read_state_dict(tmp_path / "evil.pt")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights\n" * 9, bytes(range(256)), b"\x80\x02}q\x00."])
def test_a_file_without_weights_is_named_in_one_line(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"weights\.{suffix}: ") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_truncated_file_is_named_in_one_line(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    torch.save(STATE, path) if suffix == "pt" else save_file(STATE, path)
    content = path.read_bytes()
    for end in (1, 9, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(CheckpointError, match=rf"weights\.{suffix}: .*damaged"):
            read_state_dict(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": {}}, torch.zeros(3)])
def test_other_content_is_said_to_be_no_weights(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"not named tensors|not a tensor"):
        read_state_dict(tmp_path / "other.pt")


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"other\.pt: not a checkpoint"):
        read_state_dict(tmp_path / "other.pt")


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_state_dict(tmp_path / "none.pt")


def test_compare_lists_names_and_both_shapes() -> None:
    given = {"weight": torch.zeros(4, 3), "scale": torch.zeros(())}
    assert compare(STATE, given) == (
        "1 missing: bias; 1 unexpected: scale; 1 of another shape: weight (4x3 instead of 2x3)"
    )
    assert compare(STATE, STATE) == ""


def test_compare_names_a_few_and_counts_the_rest() -> None:
    given = STATE | {f"extra.{i}": torch.zeros(1) for i in range(9)}
    assert compare(STATE, given) == "9 unexpected: extra.0, extra.1, extra.2, extra.3 and 5 more"
    assert len(compare(STATE, {**STATE, "x" * 100_000: torch.ones(1)})) < 200


def test_half_precision_weights_become_the_networks_precision() -> None:
    network = nn.Linear(3, 2)
    load_into(network, {name: tensor.half() for name, tensor in STATE.items()}, "test")
    assert network.weight.dtype == torch.float32
    assert torch.equal(network.weight, STATE["weight"])


def test_a_network_that_does_not_fit_is_left_as_it_was() -> None:
    network = nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"w\.pt: does not fit this Linear: 1 missing: bias"):
        load_into(network, {"weight": STATE["weight"]}, "w.pt")
    assert same(network.state_dict(), before)


def test_weights_are_as_readable_as_any_other_file(tmp_path: Path) -> None:
    write_state_dict(tmp_path / "model.safetensors", {"a": torch.zeros(2)})
    (tmp_path / "other").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
