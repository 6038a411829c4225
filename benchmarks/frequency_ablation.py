"""What the frequency module changes: U-Nets with and without spectral gates, presets, and detectors on their errors.

    python benchmarks/frequency_ablation.py --photos PHOTOS --out runs/ablation

Two families. `small`: U-Nets that this script trains from random weights, once per seed: without gates, with them, and
gates alone on the frozen first one. `embedded`: the model of the package, and gates trained on it, once per seed.
Presets need no training. The generated images of all detectors are samples of the embedded model; what reconstructs
them varies. Everything is kept below --out: a call that was killed goes on, one that is finished prints its tables.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import embedded_data
import numpy as np
import torch
import tyro
from ablation_report import Report
from torch import Tensor

from rediffuse.detection.config import FeatureName, InputName, MapName
from rediffuse.detection.detector import load_detector
from rediffuse.detection.features import FEATURES, INPUTS, MapInput
from rediffuse.detection.labelled import LabelledImage, find_labelled
from rediffuse.detection.resnet import load_resnet50
from rediffuse.detection.scorers import MapScorer
from rediffuse.diffusion.losses import training_losses
from rediffuse.diffusion.noise import PerSampleNoise
from rediffuse.dire.reconstruct import settings_for
from rediffuse.dire.settings import DireSettings
from rediffuse.evaluation.statistics import Moments, RunningMoments, frechet_distance
from rediffuse.files import write_bytes
from rediffuse.images import degrade
from rediffuse.images.crop import center_crop
from rediffuse.images.decode import decode
from rediffuse.images.encode import png_bytes
from rediffuse.images.find import FoundImage, find_images
from rediffuse.images.tensors import to_tensor
from rediffuse.models.config import FrequencyConfig
from rediffuse.models.flops import flops
from rediffuse.models.memory import peak_activation_bytes
from rediffuse.sampling.config import SamplingSettings
from rediffuse.sampling.sample import sample
from rediffuse.training.classifier import ClassifierTask
from rediffuse.training.config import LoopConfig
from rediffuse.training.detector import fit_bands
from rediffuse.training.diffusion import DiffusionTask
from rediffuse.training.loop import train
from rediffuse.training.map_task import WEIGHTS_NAME, MapTask
from rediffuse.training.recipes import clothing32, clothing32_classifier
from rediffuse.training.reconstructions import ReconstructionCache
from rediffuse.training.samples import Samples, measure
from rediffuse.zoo.model import ClassifierModel, DiffusionModel, load, load_classifier, resolve_device
from rediffuse.zoo.published import default_folder

INVERSE_PENALTY = 0.1
"""C of every logistic regression: nothing is chosen, so no validation is needed."""
FEATURE_INPUTS: tuple[FeatureName, ...] = ("bands", "bands_mean", "bands_ycc", "bands_image", "views", "image")
MAP_INPUTS: tuple[MapName, ...] = ("map", "map_bands", "pixels")
MEAN = "mean"
"""The mean of |D| alone: the last number of `bands_mean`."""
QUALITIES = (95, 75)
FAST = SamplingSettings(sampler="dpm_solver", steps=15)
REAL, GENERATED = 0, 1


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained and measured."""

    steps: int
    """Of the small U-Nets."""
    gate_steps: int
    """Of gates on a frozen base."""
    classifier_steps: int
    """Of the network whose features the Frechet distance compares."""
    resnet_steps: int
    num_train: int
    """Images per class that detectors are fitted to."""
    num_test: int
    """Images per class that they are judged on."""
    num_samples: int
    """Per Frechet distance."""
    all_resnets: bool
    """Train a ResNet-50 on the errors of every variant, not only of the embedded model with and without gates."""


SIZES = {
    "small": Size(
        steps=320,
        gate_steps=150,
        classifier_steps=200,
        resnet_steps=150,
        num_train=128,
        num_test=128,
        num_samples=160,
        all_resnets=False,
    ),
    "large": Size(
        steps=6000,
        gate_steps=1500,
        classifier_steps=1000,
        resnet_steps=1500,
        num_train=1000,
        num_test=360,
        num_samples=2000,
        all_resnets=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Train, measure, print."""

    photos: Path
    """Folder with train/, validation/ and test/, each with one folder per kind of thing."""
    out: Path
    size: str = "auto"
    """small: within an hour on two cores. large: for an accelerator. auto: large where there is one."""
    num_seeds: int = 3
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""

    def chosen(self) -> Size:
        on_cpu = resolve_device(self.device).type == "cpu"
        return SIZES["small" if on_cpu else "large"] if self.size == "auto" else SIZES[self.size]


@dataclass(frozen=True)
class Variant:
    """One way to put frequency into a U-Net."""

    family: str
    name: str
    source: Callable[[int], str]
    """The model of a seed: what `zoo.model.load` takes."""
    frequency: str = "trained"

    @property
    def key(self) -> str:
        return f"{self.family}-{self.name}".replace(" ", "_")


@dataclass(eq=False)
class Ablation:
    """The work, each part of which is done once and kept."""

    args: Flags
    size: Size = field(init=False)
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        self.size, self.device = self.args.chosen(), resolve_device(self.args.device)

    # --- networks ---------------------------------------------------------------------------------------------------

    def variants(self) -> list[Variant]:
        presets = ("freeu", "sharpen", "lowpass")
        small, embedded = partial(self.small, gated=False), lambda seed: "default"
        return [
            Variant("small", "base", small),
            Variant("small", "gates trained with it", partial(self.small, gated=True)),
            Variant("small", "gates on the frozen base", lambda seed: self.gates("small", self.small(seed), seed)),
            *(Variant("small", preset, small, preset) for preset in presets),
            Variant("embedded", "base", embedded),
            Variant("embedded", "gates on the frozen base", lambda seed: self.gates("embedded", "default", seed)),
            *(Variant("embedded", preset, embedded, preset) for preset in presets),
        ]

    def small(self, seed: int, gated: bool = False) -> str:
        """A U-Net trained from random weights: those of its seed, with gates and without."""
        config = clothing32(str(self.args.photos / "train"))
        network = replace(config.network, frequency=FrequencyConfig() if gated else None)
        loop = self._loop(config.loop, seed, self.size.steps)
        task = DiffusionTask(replace(config, network=network, loop=loop))
        return self._trained(task, loop, f"small-{'gated' if gated else 'base'}-{seed}")

    def gates(self, family: str, base: str, seed: int) -> str:
        """Gates on a base that stays as it is."""
        config = clothing32(str(self.args.photos / "train"))
        network = replace(config.network, frequency=FrequencyConfig())
        loop = replace(self._loop(config.loop, seed, self.size.gate_steps), learning_rate=5e-3, warmup_steps=10)
        task = DiffusionTask(replace(config, network=network, loop=loop, only="frequency"))
        return self._trained(task, loop, f"{family}-gates-{seed}", init=base)

    def _loop(self, loop: LoopConfig, seed: int, num_steps: int) -> LoopConfig:
        rate = 0.99 if num_steps < 2000 else loop.ema_rates[0]
        device = "cpu" if self.device.type == "cpu" else "auto"
        return replace(loop, seed=seed, num_steps=num_steps, evaluate_every=num_steps, ema_rates=(rate,), device=device)

    def _trained(
        self, task: DiffusionTask | ClassifierTask, loop: LoopConfig, name: str, init: str | None = None
    ) -> str:
        run = self.args.out / "runs" / name
        if not (run / "model" / "config.json").exists():
            say(f"training {name}")
            train(task, loop, run, init=init)
        return str(run / "model")

    @cache  # noqa: B019  # as long as the script runs
    def judge(self) -> ClassifierModel:
        """A classifier of clean photographs, whose features the Frechet distance compares."""
        config = clothing32_classifier(str(self.args.photos / "train"))
        loop = self._loop(config.loop, 0, self.size.classifier_steps)
        config = replace(config, network=replace(config.network, pool="adaptive"), loop=loop, clean=True)
        return load_classifier(self._trained(ClassifierTask(config), loop, "judge"), device=self.device)

    # --- the diffusion model itself ---------------------------------------------------------------------------------

    def quality(self, variant: Variant, seed: int) -> dict[str, object]:
        """Validation loss per image, and the Frechet distance of samples."""

        def measured() -> dict[str, object]:
            model = load(variant.source(seed), device=self.device)
            return {
                "losses": self.losses(model, variant.frequency, seed),
                "frechet": self.frechet(model, variant.frequency, seed),
            }

        return self._kept(f"quality/{variant.key}-{seed}", measured)

    def losses(self, model: DiffusionModel, frequency: str, seed: int) -> list[float]:
        """One hybrid loss per validation photograph, the t spread over the chain; t and noise are the seed's."""
        process, x_0 = model.process(), self.photos("validation")
        order = np.random.default_rng(seed).permutation(len(x_0))
        t = torch.from_numpy(order * process.num_timesteps // len(x_0))
        noise = PerSampleNoise([1_000_000 * seed + place for place in range(len(x_0))])(x_0)
        losses = []
        with torch.inference_mode():
            for part in torch.arange(len(x_0)).split(64):
                x, at, z = (tensor[part].to(self.device) for tensor in (x_0, t, noise))
                losses.append(training_losses(process, model.denoiser(frequency), x, at, z)["loss"].cpu())
        return torch.cat(losses).tolist()

    def frechet(self, model: DiffusionModel, frequency: str, seed: int) -> float:
        """Between the judge's features of samples and of all validation and test photographs."""
        settings = replace(FAST, frequency=frequency)
        seeds = range(50_000_000 + 10_000 * seed, 50_000_000 + 10_000 * seed + self.size.num_samples)
        samples = torch.stack(list(sample(model, settings, seeds, batch_size=64))).clamp(-1, 1)
        reference = torch.cat([self.photos("validation"), self.photos("test")])
        return frechet_distance(*(self._moments(images) for images in (samples, reference)))

    def _moments(self, images: Tensor) -> Moments:
        network, moments = self.judge().network, RunningMoments()
        features: list[Tensor] = []
        mean_over_pixels = network.out.get_submodule("2")
        handle = mean_over_pixels.register_forward_hook(lambda *call: features.append(call[2].flatten(1)))
        with torch.inference_mode():
            for part in images.split(64):
                network(part.to(self.device), torch.zeros(len(part), device=self.device))
        handle.remove()
        moments.update(torch.cat(features))
        return moments.moments()

    @cache  # noqa: B019
    def photos(self, split: str) -> Tensor:
        found = find_images([self.args.photos / split])
        return to_tensor(np.stack([center_crop(decode(image.path).pixels, 32) for image in found]))

    # --- detectors --------------------------------------------------------------------------------------------------

    def images(self, seed: int, split: str) -> list[LabelledImage]:
        """Real and generated images, equally many."""
        folder, size = self.args.out / "images" / str(seed), self.size
        number = {"train": size.num_train, "test": size.num_test}[split]
        if not (folder / "complete").exists():
            say(f"images of seed {seed}")
            embedded_data.main(
                embedded_data.Flags(
                    photos=self.args.photos,
                    out=folder,
                    num_train=size.num_train,
                    num_validation=0,
                    num_test=size.num_test,
                    seed=seed,
                    device=self.args.device,
                )
            )
            (folder / "complete").touch()
        found = find_labelled(folder / split)
        classes = [[image for image in found if image.label == label] for label in (REAL, GENERATED)]
        return [one for images in classes for one in evenly(images, number)]

    def settings(self, model: DiffusionModel, variant: Variant) -> DireSettings:
        """Five steps there and back on the aligned grid, twice: 20 calls of the network per image."""
        return settings_for(model, steps=20, depth=5, grid="aligned", frequency=variant.frequency, second_view=True)

    def measured(
        self, model: DiffusionModel, settings: DireSettings, images: Sequence[LabelledImage], names: Sequence[InputName]
    ) -> Samples:
        cache = ReconstructionCache(folder=self.args.out / "reconstructions", model=model, batch_size=32, workers=2)
        return measure(images, cache.reconstruct([image.found for image in images], settings), names)

    def detectors(self, variant: Variant, seed: int) -> dict[str, object]:
        """Scores of every detector on test images, and the errors by band of the real ones."""

        def measured() -> dict[str, object]:
            model = load(variant.source(seed), device=self.device)
            settings = self.settings(model, variant)
            names: list[InputName] = [*FEATURE_INPUTS, *(MAP_INPUTS if self.has_resnet(variant) else ())]
            split = {name: self.measured(model, settings, self.images(seed, name), names) for name in ("train", "test")}
            scorers = self.scorers(split["train"], split["test"], f"{variant.key}-{seed}")
            test = split["test"]
            return {
                "labels": test.labels.tolist(),
                "scores": {name: score(test).tolist() for name, score in scorers.items()},
                "band_errors": test.inputs["bands"][test.labels == REAL][:, :8].mean(axis=0).tolist(),
                "swaps": dict(self.swaps(model, settings, scorers, test, seed)) if self.is_swapped(variant) else {},
            }

        return self._kept(f"detectors/{variant.key}-{seed}", measured)

    def has_resnet(self, variant: Variant) -> bool:
        return self.size.all_resnets or (variant.family == "embedded" and variant.frequency == "trained")

    def is_swapped(self, variant: Variant) -> bool:
        return variant.family == "embedded" and variant.name == "base"

    def scorers(self, train: Samples, test: Samples, key: str) -> dict[str, Callable[[Samples], np.ndarray]]:
        """Every detector of one variant: from measurements to scores."""
        scorers: dict[str, Callable[[Samples], np.ndarray]] = {}
        for name in FEATURE_INPUTS:
            fitted = fit_bands(FEATURES[name], train.inputs[name], train.labels, INVERSE_PENALTY)
            scorers[name] = lambda samples, name=name, fitted=fitted: fitted.logits_of(samples.inputs[name])
        last = slice(-1, None)
        mean = fit_bands(FEATURES["bands_mean"], train.inputs["bands_mean"][:, last], train.labels, INVERSE_PENALTY)
        scorers[MEAN] = lambda samples: mean.logits_of(samples.inputs["bands_mean"][:, last])
        for name in MAP_INPUTS:
            if name in train.inputs:
                resnet = self.resnet(name, train, test, key)
                scorers[name] = lambda samples, name=name, resnet=resnet: resnet.logits_of(samples.inputs[name])
        return scorers

    def resnet(self, name: MapName, train_samples: Samples, test: Samples, key: str) -> MapScorer:
        given = INPUTS[name]
        assert isinstance(given, MapInput)
        loop = LoopConfig(
            num_steps=self.size.resnet_steps,
            batch_size=32,
            learning_rate=5e-4,
            decay="cosine",
            ema_rates=(),
            evaluate_every=self.size.resnet_steps,
            device="cpu" if self.device.type == "cpu" else "auto",
        )
        run = self.args.out / "runs" / f"resnet-{name}-{key}"
        pairs = ((samples.inputs[name], samples.labels) for samples in (train_samples, test))
        say(f"training {run.name}")
        train(MapTask(given, *pairs, seed=0, weights=None), loop, run)
        network = load_resnet50(run / "model" / WEIGHTS_NAME, given.num_channels).to(self.device)
        return MapScorer(input=given, network=network)

    def swaps(
        self,
        model: DiffusionModel,
        settings: DireSettings,
        scorers: dict[str, Callable[[Samples], np.ndarray]],
        test: Samples,
        seed: int,
    ) -> Iterator[tuple[str, dict[str, object]]]:
        """Scores when one class alone went through JPEG: `generated 75` and so on."""
        for label, name in ((REAL, "real"), (GENERATED, "generated")):
            for quality in QUALITIES:
                images = self.recompressed(seed, label, quality)
                samples = self.measured(model, settings, images, list(test.inputs))
                yield (
                    f"{name} {quality}",
                    {
                        "labels": samples.labels.tolist(),
                        "scores": {scorer: score(samples).tolist() for scorer, score in scorers.items()},
                    },
                )

    def recompressed(self, seed: int, label: int, quality: int) -> list[LabelledImage]:
        """The test images, those of one class through a JPEG of this quality (4:2:0), all as PNG."""
        folder = self.args.out / "images" / str(seed) / f"jpeg{quality}"
        images = []
        for image in self.images(seed, "test"):
            if image.label != label:
                images.append(image)
                continue
            path = (folder / image.found.name).with_suffix(".png")
            if not path.exists():
                write_bytes(path, png_bytes(degrade.jpeg(decode(image.found.path).pixels, quality)))
            images.append(replace(image, found=FoundImage(path, image.found.name)))
        return images

    def shipped(self, seed: int) -> dict[str, object]:
        """The swap test of the embedded detector, under its own settings."""

        def measured() -> dict[str, object]:
            model, detector = load("default", device=self.device), load_detector(default_folder() / "detector")
            name = detector.scorer.input.name
            sets = {"unchanged": self.images(seed, "test")} | {
                f"{word} {quality}": self.recompressed(seed, label, quality)
                for label, word in ((REAL, "real"), (GENERATED, "generated"))
                for quality in QUALITIES
            }
            result: dict[str, object] = {}
            for key, images in sets.items():
                samples = self.measured(model, detector.settings, images, [name])
                scores = detector.scorer.logits_of(samples.inputs[name])
                result[key] = {"labels": samples.labels.tolist(), "scores": {"shipped": scores.tolist()}}
            return result

        return self._kept(f"shipped/{seed}", measured)

    # --- cost and spectra -------------------------------------------------------------------------------------------

    def cost(self) -> dict[str, object]:
        """Parameters, operations, memory and time of a pass with gates and under a preset, against one without."""

        def measured() -> dict[str, object]:
            bare = load("default", device=self.device)
            gated = load(self.gates("embedded", "default", 0), device=self.device)
            calls = {"base": (bare, "trained"), "gates": (gated, "trained"), "freeu": (bare, "freeu")}
            seconds: dict[str, list[float]] = {name: [] for name in calls}
            x, t = torch.randn(32, 3, 32, 32, device=self.device), torch.full((32,), 500, device=self.device)
            with torch.inference_mode():
                for turn in range(16):
                    for name, (model, frequency) in calls.items():
                        begun = time.perf_counter()
                        model.denoiser(frequency)(x, t).sum().item()
                        if turn:  # the first one warms up
                            seconds[name].append(time.perf_counter() - begun)
            networks = {"base": bare.network, "gates": gated.network}
            return {
                "seconds": seconds,
                "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()},
                "operations": {name: flops(net, (1, 3, 32, 32)) for name, net in networks.items()},
                "activations": {name: peak_activation_bytes(net, (1, 3, 32, 32)) for name, net in networks.items()},
            }

        return self._kept("cost", measured)

    def reconstructed(self, label: int) -> tuple[Tensor, Tensor]:
        """Test images of one class and what the embedded model gives back of them."""
        model = load("default", device=self.device)
        settings = self.settings(model, Variant("embedded", "base", lambda seed: "default"))
        cache = ReconstructionCache(folder=self.args.out / "reconstructions", model=model, batch_size=32, workers=2)
        found = [image.found for image in self.images(0, "test") if image.label == label]
        results = [result.reconstruction for result in cache.reconstruct(found, settings)]
        pairs = [(one.x_0, one.x_0_hat) for one in results if one is not None]
        x_0, x_0_hat = (torch.cat(side) for side in zip(*pairs, strict=True))
        return x_0, x_0_hat

    def _kept(self, name: str, measured: Callable[[], dict[str, object]]) -> dict[str, object]:
        path = self.args.out / f"{name}.json"
        if not path.exists():
            begun = time.perf_counter()
            say(name)
            write_bytes(path, json.dumps(measured()).encode())
            say(f"{name}: {time.perf_counter() - begun:.0f} s")
        return json.loads(path.read_text())


def evenly(items: Sequence[LabelledImage], number: int) -> list[LabelledImage]:
    """Up to `number` of them, from all over."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(number, len(items))).round().astype(int)]


def say(line: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)


def main(args: Flags) -> None:
    work = Ablation(args)
    seeds = range(args.num_seeds)
    report = Report(args.out, work.size, args.num_seeds)
    report.cost(work.cost())
    variants = work.variants()
    for seed in seeds:
        for variant in variants:
            work.quality(variant, seed)
    detected = [variant for variant in variants if variant.family == "embedded" or variant.frequency == "trained"]
    for seed in seeds:
        for variant in detected:
            work.detectors(variant, seed)
        work.shipped(seed)
    report.quality({variant: [work.quality(variant, seed) for seed in seeds] for variant in variants})
    report.detectors({variant: [work.detectors(variant, seed) for seed in seeds] for variant in detected})
    report.swaps([work.detectors(variant, seed) for variant in detected if work.is_swapped(variant) for seed in seeds])
    report.shipped([work.shipped(seed) for seed in seeds])
    report.spectra({"real": work.reconstructed(REAL), "generated": work.reconstructed(GENERATED)})
    report.gates([load(work.gates("embedded", "default", seed)).network for seed in seeds])
    report.write()


if __name__ == "__main__":
    main(tyro.cli(Flags))
