"""Spectral gates and the weights that they belong to: in one folder, in a separate file, new on published weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from golden_values import fill
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import CheckpointError, ConfigError
from rediffuse.models.config import FrequencyConfig, UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.convert import convert
from rediffuse.zoo.find import find
from rediffuse.zoo.gates import with_gates, write_gates
from rediffuse.zoo.model import DiffusionModel, Provenance, load

GATES = FrequencyConfig(num_bands=4, num_groups=8, hidden=5)
BARE = UNetConfig(image_size=8, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, num_head_channels=16)
PROCESS = ProcessConfig(schedule="cosine", num_timesteps=100, variance="fixed_large")
TOLD = {"image_size": 8, "num_head_channels": 16, "use_new_attention_order": False}


def save(config: UNetConfig, folder: Path) -> DiffusionModel:
    provenance = Provenance(source="test", sha256="")
    model = DiffusionModel(network=fill(UNetModel(config)), process_config=PROCESS, provenance=provenance)
    model.save(folder)
    return model


@pytest.fixture
def gated(tmp_path: Path) -> DiffusionModel:
    return save(replace(BARE, frequency=GATES), tmp_path / "gated")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    save(BARE, tmp_path / "base")
    return tmp_path / "base"


def output(model: DiffusionModel) -> torch.Tensor:
    with torch.no_grad():
        return model.network(torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8), torch.tensor([3, 70]))


def test_a_folder_keeps_gates(gated: DiffusionModel, tmp_path: Path) -> None:
    loaded = load(tmp_path / "gated")
    assert loaded.network.config == gated.network.config
    torch.testing.assert_close(output(loaded), output(gated))


def test_a_file_of_weights_tells_its_gates(gated: DiffusionModel, tmp_path: Path) -> None:
    loaded = load(tmp_path / "gated" / "model.safetensors", network=TOLD, process=PROCESS)
    assert loaded.network.config.frequency == GATES
    torch.testing.assert_close(output(loaded), output(gated))


def test_gates_are_saved_and_loaded_alone(gated: DiffusionModel, base: Path, tmp_path: Path) -> None:
    path = tmp_path / "frequency.safetensors"
    write_gates(path, gated.network)
    assert path.stat().st_size < 0.2 * (base / "model.safetensors").stat().st_size
    loaded = load(base, frequency=path)
    torch.testing.assert_close(output(loaded), output(gated))  # `fill` depends on names only, so the bases are equal
    assert not torch.allclose(output(load(base)), output(gated), atol=1e-3)


def test_a_base_with_gates_is_another_model_than_without(gated: DiffusionModel, base: Path, tmp_path: Path) -> None:
    path = tmp_path / "frequency.safetensors"
    write_gates(path, gated.network)
    once, again, bare = load(base, frequency=path), load(base, frequency=path), load(base)
    assert once.provenance == again.provenance
    assert once.provenance.sha256 != bare.provenance.sha256
    assert str(path) in once.provenance.source


def test_gates_take_the_place_of_others(gated: DiffusionModel, tmp_path: Path) -> None:
    path = tmp_path / "frequency.safetensors"
    other = UNetModel(replace(BARE, frequency=replace(GATES, num_bands=6)))
    write_gates(path, other)
    found = with_gates(find(tmp_path / "gated"), path)
    assert found.layout.fields["frequency"].num_bands == 6
    assert torch.equal(found.state["frequency.0.embed.weight"], other.state_dict()["frequency.0.embed.weight"])


def test_weights_without_gates_get_new_ones_that_change_nothing(base: Path) -> None:
    file = base / "model.safetensors"
    bare, gated = (
        load(file, network={**TOLD, **extra}, process=PROCESS) for extra in ({}, {"frequency": FrequencyConfig()})
    )
    new = gated.network.state_dict().keys() - bare.network.state_dict().keys()
    assert new == {name for name in gated.network.state_dict() if name.startswith("frequency.")}
    assert torch.equal(output(gated), output(bare))


def test_a_folder_that_lacks_the_gates_of_its_config_is_refused(gated: DiffusionModel, tmp_path: Path) -> None:
    bare = {name: t.contiguous() for name, t in gated.network.state_dict().items() if not name.startswith("frequency.")}
    save_file(bare, tmp_path / "gated" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: frequency\.0\.offset"):
        load(tmp_path / "gated")


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ({"out.2.bias": torch.zeros(3)}, "holds out.2.bias; only spectral gates"),
        ({"frequency.0.offset": torch.zeros(3)}, "do not have the shapes of spectral gates"),
        ({"frequency.0.offset": torch.zeros(8, 4), "frequency.0.embed.weight": torch.zeros(5, 4)}, "missing"),
    ],
)
def test_a_file_of_something_else_is_refused(state: dict[str, torch.Tensor], line: str, base: Path) -> None:
    save_file(state, base / "gates.safetensors")
    with pytest.raises(CheckpointError, match=line):
        load(base, frequency=base / "gates.safetensors")


def test_a_network_without_gates_has_none_to_write(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no spectral gates"):
        write_gates(tmp_path / "gates.safetensors", load(base).network)
    assert not (tmp_path / "gates.safetensors").exists()


def test_gates_do_not_go_into_a_file_for_guided_diffusion(gated: DiffusionModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot hold spectral gates"):
        convert(find(tmp_path / "gated"), tmp_path / "old.pt")
    assert not (tmp_path / "old.pt").exists()
