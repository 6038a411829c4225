"""What speed depends on, as numbers that do not depend on the machine: calls, copies, synchronisations, ratios."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from operations import Operations
from rediffuse.bench.parts import Options, measure, write_images
from rediffuse.detection.detect import detect
from rediffuse.detection.detector import load_detector
from rediffuse.detection.judge import verdict
from rediffuse.diffusion import trajectory
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.diffusion.guidance import classifier_guidance
from rediffuse.diffusion.process import SamplerOptions
from rediffuse.diffusion.samplers import SAMPLERS
from rediffuse.dire.job import reconstruct_files
from rediffuse.dire.reconstruct import Reconstructor, network_calls
from rediffuse.dire.settings import DireSettings
from rediffuse.images.find import find_images
from rediffuse.models.config import EncoderConfig, UNetConfig
from rediffuse.report.details import details
from rediffuse.report.page import Report
from rediffuse.sampling.config import SamplingSettings
from rediffuse.sampling.sample import denoise
from rediffuse.zoo.folder import Provenance
from rediffuse.zoo.model import DiffusionModel, load, meta_network

BF16 = "bf16"


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return load("default")


class Transfers(TorchDispatchMode):
    """Counts the copies from one device to another, and those for which the program waits."""

    number = 0
    waits = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            devices = {leaf.device.type for leaf in tree_leaves((args, out)) if isinstance(leaf, Tensor)}
            self.number += len(devices) > 1
            self.waits += len(devices) > 1 and not ((kwargs or {}).get("non_blocking") or args[-1] is True)
        return out


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_never_waits_for_the_device(name: str) -> None:
    """Tensors of the meta device have no values: to read one, which would synchronise with a GPU, is an error."""
    model = load("default").to("meta")
    options = SamplerOptions(noise=torch.empty_like)
    process, network = model.process("3"), model.denoiser(SamplingSettings(), BF16)
    x = torch.empty(2, *model.shape, device="meta")
    transfers = []
    for _ in range(2):
        with Transfers() as counted:
            trajectory.last(trajectory.sample(name, process, network, x, options))
            if SAMPLERS[name].can_invert:
                trajectory.last(trajectory.invert(name, process, network, x, options))
        transfers.append(counted.number)
    assert transfers[1] == 0  # the tables of the process are on the device since the first loop


@pytest.mark.parametrize("frequency", ["trained", "freeu", "sharpen"])
@pytest.mark.parametrize(("sampler", "eta"), [("ddim", 1.0), ("ddpm", 0.0)])
def test_sampling_only_sends_noise_to_the_device_and_does_not_wait(sampler: str, eta: float, frequency: str) -> None:
    """Also with the guidance of a classifier."""
    model, classifier = (
        load("default").to("meta"),
        meta_network("encoder", EncoderConfig(image_size=32, out_channels=3)),
    )
    settings = SamplingSettings(sampler=sampler, eta=eta, steps=4, frequency=frequency)
    network, guidance = model.denoiser(settings), classifier_guidance(classifier.eval(), 2.0)
    labels = torch.empty(2, dtype=torch.int64, device="meta")
    transfers = []
    for _ in range(2):
        with Transfers() as counted:
            for _ in denoise(model, network, [1, 2], settings, labels=labels, guidance=guidance):
                pass
        transfers.append((counted.number, counted.waits))
    assert transfers[1] == (1 + 4, 0)  # x_T, and the noise of each step


def test_an_upscaled_batch_and_its_noise_are_all_that_is_sent_to_the_device() -> None:
    network = meta_network("superres", UNetConfig(image_size=32, model_channels=32, channel_mult=(1, 1)))
    provenance = Provenance(source="meta", sha256="0" * 64)
    process = ProcessConfig(variance="fixed_large")
    model = DiffusionModel(network=network.eval(), process_config=process, provenance=provenance)
    settings = SamplingSettings(steps=4)
    denoiser = model.denoiser(settings)
    for _ in range(2):
        with Transfers() as counted:
            for _ in denoise(model, denoiser, [1, 2], settings, low_res=torch.zeros(2, 3, 16, 16)):
                pass
    assert (counted.number, counted.waits) == (2, 0)


def test_a_batch_of_images_and_its_classes_are_sent_to_the_device_without_waiting() -> None:
    network = meta_network("unet", UNetConfig(image_size=32, model_channels=32, channel_mult=(1, 1), num_classes=3))
    provenance = Provenance(source="meta", sha256="0" * 64)
    process = ProcessConfig(variance="fixed_large")
    model = DiffusionModel(network=network.eval(), process_config=process, provenance=provenance)
    reconstruct = Reconstructor(model, DireSettings.for_model(model, steps=4, precision=BF16))
    for _ in range(2):
        with Transfers() as counted:
            reconstruct(torch.zeros(2, 3, 32, 32), [0, 2])
    assert (counted.number, counted.waits) == (2, 0)


def test_a_call_of_the_network_copies_little(model: DiffusionModel) -> None:
    """Conversions are at both ends of the torso, and layouts change only around the normalisation of small maps."""
    network = model.denoiser(SamplingSettings(), BF16)
    x, t = torch.zeros(16, *model.shape), torch.tensor(500).expand(16)
    with torch.no_grad():
        network(x, t)  # packs weights and embeds the timestep
        with Operations() as seen:
            network(x, t)
    num_norms = sum(isinstance(module, torch.nn.GroupNorm) for module in network.modules())
    assert seen.counts["aten._to_copy.default"] == 2
    assert seen.counts["aten.clone.default"] <= 2 * num_norms


def test_a_job_calls_the_network_as_often_as_its_settings_say(model: DiffusionModel, tmp_path: Path) -> None:
    rows = []
    handle = model.network.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    try:
        verdicts = detect([str(path) for path in write_images(tmp_path, 2)], model=model)
    finally:
        handle.remove()
    num_windows = sum(len(judged.windows) for judged in verdicts)
    assert num_windows == 16
    assert sum(rows) == num_windows * network_calls(model, load_detector().settings) / 8


def test_the_spectra_of_an_image_are_computed_once_for_its_verdict(model: DiffusionModel, tmp_path: Path) -> None:
    """Those of image, reconstruction and error, of all windows together, also for the page."""
    detector, (path, *_) = load_detector(), write_images(tmp_path, 1)
    (result,) = reconstruct_files(model, find_images([path]), detector.settings, batch_size=8)
    with Operations() as seen:
        details(verdict(result, detector, explain=True, evidence=True))
    assert seen.counts["aten._fft_r2c.default"] == 1


def test_the_network_takes_most_of_a_job(model: DiffusionModel) -> None:
    """Processor time, which other programs disturb little; the median of five rounds. Takes seconds."""
    rows = measure("job", model, Options(num_images=4, rounds=5, clock="cpu"))
    ratio = {row.subject: row.ratio for row in rows}["job"]
    assert ratio is not None
    assert ratio > 0.75


def test_a_report_takes_little_beside_its_job(model: DiffusionModel, tmp_path: Path) -> None:
    """Takes seconds: it judges real files."""
    paths = [str(path) for path in write_images(tmp_path / "images", 4)]
    detect(paths[:1], model=model, evidence=True)
    with Report(file=tmp_path / "first.html", folder=None, workers=1) as report:  # loads what reports need
        for judged in detect(paths[:1], model=model, evidence=True):
            report.add(judged)
        report.write()
    begin = time.process_time()
    verdicts = detect(paths, model=model, evidence=True)
    middle = time.process_time()
    with Report(file=tmp_path / "report.html", folder=None, workers=1) as report:
        for judged in verdicts:
            report.add(judged)
        report.write()
    assert time.process_time() - middle < 0.2 * (middle - begin)
