"""Model folders and files of weights that nobody made with care: each loads, or gives an error of one line."""

import json
import math
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from golden_values import fill
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import CheckpointError, ConfigError, RediffuseError
from rediffuse.models.checkpoints import read_state_dict
from rediffuse.models.config import UNetConfig
from rediffuse.models.layout import infer
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.convert import convert
from rediffuse.zoo.find import find
from rediffuse.zoo.inspect import inspect
from rediffuse.zoo.model import DiffusionModel, Provenance, load

CONFIG = UNetConfig(image_size=8, model_channels=32, channel_mult=(1,), num_res_blocks=1)
PROCESS = ProcessConfig(num_timesteps=10, variance="fixed_large")
MANY = "9" * 4000
"""A number with as many digits as Python reads without an error of its own."""

UNUSABLE = "sparse, quantized, complex or empty; dense, real tensors are needed"

SOME = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as it should be."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    network = fill(UNetModel(CONFIG))
    DiffusionModel(network=network, process_config=PROCESS, provenance=Provenance(source="", sha256="")).save(folder)
    return folder


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


def check_line(use: Callable[[], object]) -> None:
    """Run something; if it raises an error, this is one line of moderate length."""
    line = ""
    try:
        use()
    except RediffuseError as error:
        line = str(error)
    assert line.isprintable()
    assert len(line) < 1000


odd_numbers = st.sampled_from(
    [-1, 0, 2, 7, 10**4, 10**9, 10**12, 2**63, int(MANY), 0.5, 1e308, float("inf"), float("nan")]
)
odd_values = st.recursive(
    odd_numbers | st.none() | st.booleans() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=40),
    max_leaves=50,
)
fields = st.sampled_from(
    [("network", name) for name in asdict(CONFIG)] + [("process", name) for name in asdict(PROCESS)]
)


@SOME
@given(changes=st.lists(st.tuples(fields, odd_values), min_size=1, max_size=3))
def test_any_value_of_a_field_gives_a_model_or_one_line(folder: Path, model: Path, changes: Any) -> None:
    config = json.loads((model / "config.json").read_bytes())
    for (part, name), value in changes:
        config[part][name] = value
    (folder / "config.json").write_text(json.dumps(config))
    check_line(lambda: load(folder))


@SOME
@given(data=st.data())
def test_any_bytes_of_the_configuration_give_a_model_or_one_line(
    folder: Path, model: Path, data: st.DataObject
) -> None:
    content = (model / "config.json").read_bytes()
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, min(len(content), begin + 20)))
    piece = data.draw(st.binary(max_size=8) | st.sampled_from([b"[" * 10**5, MANY.encode(), b'{"a":' * 100, b"1e999"]))
    (folder / "config.json").write_bytes(content[:begin] + piece + content[end:])
    check_line(lambda: load(folder))


@SOME
@given(data=st.data())
def test_any_shapes_of_tensors_give_a_layout_or_one_line(data: st.DataObject) -> None:
    with torch.device("meta"):
        state = UNetModel(CONFIG).state_dict()
    for name in data.draw(st.lists(st.sampled_from(sorted(state)), min_size=1, max_size=4)):
        shapes = st.lists(st.sampled_from([0, 1, 2, 3, 32, 64, 10**6]), max_size=4)
        shape = data.draw(st.none() | shapes.filter(lambda sides: math.prod(sides) < 2**60))  # torch refuses more
        renamed = data.draw(
            st.sampled_from([name, "input_blocks.999999.0.weight", f"input_blocks.{MANY}.0.weight", "out.3.x"])
        )
        tensor = state.pop(name, torch.empty(1, device="meta"))
        if shape is not None:
            state[renamed] = tensor.new_empty(shape)
    check_line(lambda: infer(state, "file").config())


@pytest.mark.parametrize(
    ("part", "changes", "line"),
    [
        ("network", {"model_channels": 10**9}, "model_channels=1000000000: at most 65536 is allowed"),
        ("network", {"channel_mult": [1, float("inf")]}, "channel_mult=inf: at most 2048.0 is allowed"),
        ("network", {"channel_mult": [float("nan")]}, "channel_mult=nan: at least 0 is needed"),
        ("network", {"image_size": int(MANY)}, r"image_size=9+\.\.\.9+: at most 16384 is allowed"),
        ("process", {"num_timesteps": 10**10}, "num_timesteps=10000000000: at most 100000 is allowed"),
        ("network", {"num_classes": 10**6}, "does not fit this UNetModel: 1 missing: label_emb.weight"),
        ("network", {"in_channels": 4096}, r"does not fit this UNetModel: .*32x3x3x3 instead of 32x4096x3x3"),
    ],
)
def test_a_number_out_of_its_range_is_refused_before_a_network_is_built(
    folder: Path, part: str, changes: dict[str, Any], line: str
) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    config[part] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises((ConfigError, CheckpointError), match=line):
        load(folder, device="auto")


@pytest.mark.parametrize("depth", [100, 10**5])
def test_a_deeply_nested_configuration_is_one_line(folder: Path, depth: int) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"training": {', '"training": {"a": ' + "[" * depth + "]" * depth))
    with pytest.raises(ConfigError, match=r"nested (too deeply|more than 64 levels deep)"):
        load(folder)


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({1: torch.eye(2)}, "holds an entry with the name 1; names must be text"),
        ({"a": torch.zeros(1).expand(10**6, 10**6)}, "its tensors need 4,000,000,000,000 bytes, but the file has"),
        ({"a": torch.empty(10**9, device="meta")}, f"'a' is {UNUSABLE}"),
        ({"a": torch.eye(2).to_sparse()}, f"'a' is {UNUSABLE}"),
        ({"a": torch.eye(2).to(torch.complex64)}, f"'a' is {UNUSABLE}"),
        ({"a\nb": 1}, r"'a\\nb' is int, not a tensor"),
    ],
)
def test_what_no_program_stores_as_weights_is_refused(tmp_path: Path, content: Any, line: str) -> None:
    with pytest.raises(CheckpointError, match=line) as caught:
        read_state_dict(save(tmp_path / "weights.pt", content))
    assert str(caught.value).isprintable()


def test_a_compressed_file_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(save(tmp_path / "a.pt", {"a": torch.zeros(9)})) as whole,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in whole.infolist():
            packed.writestr(entry.filename, whole.read(entry))
    with pytest.raises(CheckpointError, match=r"b\.pt: is compressed"):
        read_state_dict(tmp_path / "b.pt")


def with_nan(model: Path, path: Path) -> Path:
    state = read_state_dict(model / "model.safetensors")
    state["out.2.bias"] = torch.tensor([1.0, float("nan"), float("inf")])
    return save(path, state)


def test_weights_that_are_not_finite_are_shown_and_refused_with_their_count(model: Path, tmp_path: Path) -> None:
    path, told = (
        with_nan(model, tmp_path / "weights.pt"),
        {"image_size": 8, "num_heads": 1, "use_new_attention_order": False},
    )
    line = r"2 of [\d,]+ values are NaN or infinite: out\.2\.bias"
    for use in (
        lambda: load(path, network=told, process=PROCESS),
        lambda: convert(find(path, told, PROCESS), tmp_path / "other.pt"),
        lambda: convert(find(path, told, PROCESS), tmp_path / "folder"),
    ):
        with pytest.raises(CheckpointError, match=line):
            use()
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pt"]
    assert inspect(path).not_finite.startswith("2 of ")


def test_a_precision_that_cannot_hold_the_weights_is_refused(model: Path, tmp_path: Path) -> None:
    state = read_state_dict(model / "model.safetensors")
    state["out.2.bias"] = torch.full((3,), 1e6)
    found = find(save(tmp_path / "weights.pt", state))
    with pytest.raises(CheckpointError, match=r"weights\.pt in torch\.float16: 3 of [\d,]+ values are NaN or infinite"):
        convert(found, tmp_path / "half.pt", dtype=torch.float16)
