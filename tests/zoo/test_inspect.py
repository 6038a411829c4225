"""Facts about weights: all about a folder, most about a file, some about every file with tensors."""

from pathlib import Path

import pytest
import torch

from golden_values import fill
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import CheckpointError, ConfigError, InputError
from rediffuse.models.config import UNetConfig
from rediffuse.models.flops import flops
from rediffuse.models.memory import peak_activation_bytes
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.inspect import inspect
from rediffuse.zoo.model import DiffusionModel, Provenance

CONFIG = UNetConfig(image_size=8, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, num_head_channels=16)
PROCESS = ProcessConfig(schedule="cosine", num_timesteps=100, variance="fixed_large")


@pytest.fixture(scope="module")
def network() -> UNetModel:
    return fill(UNetModel(CONFIG))


@pytest.fixture
def weights(network: UNetModel, tmp_path: Path) -> Path:
    torch.save(network.state_dict(), tmp_path / "w.pt")
    return tmp_path / "w.pt"


def test_a_folder_is_known_in_full(network: UNetModel, tmp_path: Path) -> None:
    model = DiffusionModel(
        network=network, process_config=PROCESS, provenance=Provenance(source="", sha256=""), training={"steps": 3}
    )
    model.save(tmp_path, dtype=torch.float16)
    found = inspect(tmp_path, batch_size=4)
    assert found.layout is not None
    assert found.layout.config() == CONFIG
    assert (found.process, found.training, found.difference, found.reason) == (PROCESS, {"steps": 3}, "", "")
    assert found.totals.num_parameters == sum(parameter.numel() for parameter in network.parameters())
    assert found.totals.dtypes == ("float16",)
    assert found.cost is not None
    assert found.cost.operations == 4 * flops(network, (1, 3, 8, 8))
    assert found.cost.activation_bytes == peak_activation_bytes(network, (4, 3, 8, 8))
    assert found.cost.weight_bytes == 4 * found.totals.num_parameters


def test_of_a_file_the_rest_is_said_to_be_unknown(weights: Path) -> None:
    found = inspect(weights)
    assert found.layout is not None
    assert found.layout.fields["channel_mult"] == (1, 2)
    assert found.layout.unknown == (
        "image_size",
        "use_new_attention_order",
        "num_heads or num_head_channels",
        "process",
    )
    assert (found.process, found.cost, found.difference) == (None, None, "")


def test_the_image_size_is_enough_for_the_cost(weights: Path) -> None:
    found = inspect(weights, network={"image_size": 16})
    assert found.cost is not None
    assert found.cost.operations == flops(UNetModel(CONFIG), (1, 3, 16, 16))


def test_names_that_do_not_belong_are_listed(weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    del state["out.0.bias"]
    torch.save(state | {"extra": torch.zeros(1)}, weights)
    found = inspect(weights, network={"image_size": 8})
    assert found.difference == "1 missing: out.0.bias; 1 unexpected: extra"
    assert found.cost is None


def test_tensors_of_anything_else_are_counted(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(5, 3), "steps": torch.zeros((), dtype=torch.int64)}, tmp_path / "w.pt")
    found = inspect(tmp_path / "w.pt")
    assert found.layout is None
    assert "not a U-Net or its encoder: there is no weight time_embed.0.weight" in found.reason
    assert (found.totals.num_tensors, found.totals.num_parameters) == (2, 16)
    assert found.totals.dtypes == ("float32", "int64")


def test_what_holds_no_tensors_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="not a checkpoint, or a damaged one"):
        inspect(tmp_path / "w.pt")
    with pytest.raises(InputError, match="no such folder or file"):
        inspect(tmp_path / "none")


def test_a_batch_of_nothing_is_refused(weights: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size=0: at least 1 is needed"):
        inspect(weights, batch_size=0)
