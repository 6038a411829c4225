"""Conversion of weights in both directions: same tensors, same names; files are replaced only with force."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from faults import files_at_most
from golden_values import fill
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import CheckpointError, ConfigError, InputError, StorageError
from rediffuse.files import claim
from rediffuse.models.config import EncoderConfig, UNetConfig
from rediffuse.models.encoder import EncoderUNetModel
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.convert import convert
from rediffuse.zoo.find import find
from rediffuse.zoo.model import ClassifierModel, DiffusionModel, Provenance, load, load_classifier

CONFIG = UNetConfig(image_size=8, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, num_head_channels=16)
ENCODER = EncoderConfig(image_size=8, model_channels=32, channel_mult=(1,), num_res_blocks=1, out_channels=5)
PROCESS = ProcessConfig(schedule="cosine", num_timesteps=100, variance="fixed_large")
TOLD = {"image_size": 8, "num_head_channels": 16, "use_new_attention_order": False}
HERE = Provenance(source="test", sha256="")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = fill(UNetModel(CONFIG))
    DiffusionModel(network=network, process_config=PROCESS, provenance=HERE, training={"steps": 3}).save(tmp_path / "m")
    return tmp_path / "m"


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    same = all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a.keys() & b.keys())
    return a.keys() == b.keys() and same


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_a_folder_becomes_a_plain_state_dict_and_a_folder_again(
    dtype: torch.dtype | None, folder: Path, tmp_path: Path
) -> None:
    path, back = tmp_path / "w.pt", tmp_path / "back"
    convert(find(folder), path, dtype=dtype)
    plain = torch.load(path, weights_only=True)
    assert type(plain) is dict
    assert plain.keys() == UNetModel(CONFIG).state_dict().keys()
    assert {tensor.dtype for tensor in plain.values()} == {dtype or torch.float32}
    convert(find(path, TOLD, PROCESS), back)
    assert equal(load_file(back / "model.safetensors"), plain)
    model = load(back)
    assert (model.network.config, model.process_config) == (CONFIG, PROCESS)
    if dtype is None:
        assert equal(load_file(folder / "model.safetensors"), plain)


def test_a_folder_keeps_its_training_record(folder: Path, tmp_path: Path) -> None:
    convert(find(folder), tmp_path / "copy", dtype=torch.float16)
    assert load(tmp_path / "copy").training == {"steps": 3}


def test_a_classifier_is_converted_too(tmp_path: Path) -> None:
    network = fill(EncoderUNetModel(ENCODER))
    ClassifierModel(network=network, process_config=PROCESS, provenance=HERE).save(tmp_path / "c")
    convert(find(tmp_path / "c"), tmp_path / "c.pt")
    known = {"image_size": 8, "num_heads": 1, "use_new_attention_order": False}
    convert(find(tmp_path / "c.pt", known, PROCESS), tmp_path / "back")
    assert load_classifier(tmp_path / "back").num_classes == 5


def test_a_state_dict_needs_no_configuration_to_become_another(folder: Path, tmp_path: Path) -> None:
    convert(find(folder), tmp_path / "w.pt")
    convert(find(tmp_path / "w.pt"), tmp_path / "half.pt", dtype=torch.float16)
    with pytest.raises(ConfigError, match=r"the tensors do not determine image_size, .*, process"):
        convert(find(tmp_path / "w.pt"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_state_dict_is_no_larger_than_its_tensors(folder: Path, tmp_path: Path) -> None:
    found = find(folder)
    convert(found, tmp_path / "w.pt")
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in found.state.values())
    assert (tmp_path / "w.pt").stat().st_size < num_bytes + 1000 * len(found.state)


def test_nothing_is_replaced_without_force(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"w\.pt: exists already; --force replaces it"):
        convert(find(folder), path)
    assert path.read_bytes() == b"mine"
    convert(find(folder), path, force=True)
    with pytest.raises(InputError, match="is the source itself; give another name"):
        convert(find(folder), folder, force=True)


@pytest.mark.parametrize("name", ["w.pt", "copy"])
@pytest.mark.parametrize("most", [100, 50_000])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(folder: Path, tmp_path: Path, name: str, most: int) -> None:
    def there() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    found, before = find(folder), there()
    for force in (False, True):
        line = r"/(w\.pt|copy/[a-z]\w*\.\w+): could not be written: .*File too large"
        with files_at_most(most), pytest.raises(StorageError, match=line):
            convert(found, tmp_path / name, force=force)
        assert there() == before
        convert(found, tmp_path / name, force=True)
        before = there()


def test_a_folder_that_another_process_is_writing_is_refused(folder: Path, tmp_path: Path) -> None:
    with claim(tmp_path / "copy"), pytest.raises(StorageError, match="copy: another process is writing to this folder"):
        convert(find(folder), tmp_path / "copy", force=True)


def test_a_process_that_does_not_fit_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    convert(find(folder), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="needs out_channels=6, but the network has 3"):
        convert(find(tmp_path / "w.pt", TOLD, ProcessConfig()), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_tensors_that_do_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    convert(find(folder), tmp_path / "w.pt")
    state = torch.load(tmp_path / "w.pt", weights_only=True)
    torch.save(state | {"extra": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="does not fit its configuration: 1 unexpected: extra"):
        convert(find(tmp_path / "w.pt"), tmp_path / "copy.pt")
