"""Bits per dimension of files: the number of a file does not depend on the other files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from golden_values import fill
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.diffusion.likelihood import bits_per_dimension
from rediffuse.diffusion.noise import PerSampleNoise
from rediffuse.errors import ConfigError, InputError
from rediffuse.evaluation.likelihood import likelihoods
from rediffuse.images.find import find_images
from rediffuse.images.tensors import to_tensor
from rediffuse.models.config import UNetConfig
from rediffuse.models.superres import SuperResModel
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import DiffusionModel, Provenance

CONFIG = UNetConfig(image_size=10, model_channels=32, num_res_blocks=1, channel_mult=(1,))
PROCESS = ProcessConfig(variance="fixed_large", num_timesteps=50)


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    provenance = Provenance(source="test", sha256="")
    return DiffusionModel(network=fill(UNetModel(CONFIG)).eval(), process_config=PROCESS, provenance=provenance)


def test_every_file_has_the_bound_of_its_own_noise(model: DiffusionModel, folder: Path, pixels: np.ndarray) -> None:
    told: list[int] = []
    found = likelihoods(model, find_images([folder]), steps=4, seed=7, batch_size=5, progress=told.append)
    noise = PerSampleNoise(range(7, 19))
    expected = bits_per_dimension(model.process("4"), model.network, to_tensor(pixels), noise)
    for values, others in zip(found.bits, expected, strict=True):
        torch.testing.assert_close(values, others, rtol=1e-4, atol=1e-4)
    assert found.names == tuple(f"{index:02}.png" for index in range(12))
    assert (told, found.failures) == ([5, 5, 2], ())


def test_the_terms_are_saved_as_means_by_timestep(model: DiffusionModel, folder: Path, tmp_path: Path) -> None:
    found = likelihoods(model, find_images([folder]), steps=4)
    found.save(tmp_path / "terms.npz")
    with np.load(tmp_path / "terms.npz") as saved:
        assert {saved[name].shape for name in ("vb_terms", "mse", "xstart_mse")} == {(4,)}
        assert saved["names"].tolist() == list(found.names)
        mean = saved["vb_terms"].sum() + saved["prior_bpd"].mean()
        assert saved["total_bpd"].mean() == pytest.approx(mean, rel=1e-5)


def test_an_unreadable_file_changes_nothing_for_the_others(model: DiffusionModel, folder: Path) -> None:
    whole = likelihoods(model, find_images([folder]), steps=2)
    (folder / "03.png").write_bytes(b"no image")
    found = likelihoods(model, find_images([folder]), steps=2, batch_size=4)
    assert "03.png" in found.failures[0]
    kept = [index for index, name in enumerate(whole.names) if name != "03.png"]
    torch.testing.assert_close(found.bits.total, whole.bits.total[kept], rtol=1e-4, atol=1e-4)


def test_nothing_readable_is_an_error(model: DiffusionModel, folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="none of the 12 files could be read; the first: "):
        likelihoods(model, find_images([folder]), steps=1)


def test_classes_reach_the_network(folder: Path) -> None:
    network = fill(UNetModel(replace(CONFIG, num_classes=2))).eval()
    model = DiffusionModel(network=network, process_config=PROCESS, provenance=Provenance(source="test", sha256=""))
    files = find_images([folder])
    zero, one = (
        likelihoods(model, [replace(file, label=label) for file in files], steps=1).bits.total for label in (0, 1)
    )
    assert not torch.equal(zero, one)


def test_a_model_of_something_else_is_refused(folder: Path) -> None:
    model = DiffusionModel(
        network=SuperResModel(CONFIG), process_config=PROCESS, provenance=Provenance(source="test", sha256="")
    )
    line = "test: a superres of 3 channels in 2 dimensions cannot give a likelihood of images"
    with pytest.raises(ConfigError, match=line):
        likelihoods(model, find_images([folder]))


def test_a_batch_of_nothing_is_refused(model: DiffusionModel, folder: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size=0: at least 1 is needed"):
        likelihoods(model, find_images([folder]), batch_size=0)
