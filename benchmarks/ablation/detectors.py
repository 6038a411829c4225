"""Detectors on the errors of every variant, and the swap test: only one class is compressed as JPEG."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import embedded_data
import numpy as np
import torch
from torch import Tensor

from ablation.networks import Variant
from ablation.work import Work, say
from rediffuse.detection.config import FeatureName, InputName, MapName
from rediffuse.detection.detector import load_detector
from rediffuse.detection.features import FEATURES, INPUTS, MapInput
from rediffuse.detection.labelled import LabelledImage, find_labelled
from rediffuse.detection.resnet import load_resnet50
from rediffuse.detection.scorers import MapScorer
from rediffuse.dire.job import FileResult
from rediffuse.dire.settings import DireSettings
from rediffuse.files import write_bytes
from rediffuse.images import degrade
from rediffuse.images.decode import decode
from rediffuse.images.encode import png_bytes
from rediffuse.images.find import FoundImage
from rediffuse.training.config import LoopConfig
from rediffuse.training.detector_search import fit_bands
from rediffuse.training.loop import train
from rediffuse.training.map_task import WEIGHTS_NAME, MapTask
from rediffuse.training.reconstructions import ReconstructionCache
from rediffuse.training.samples import Samples, measure
from rediffuse.zoo.model import DiffusionModel, load

INVERSE_PENALTY = 0.1
"""C of every logistic regression; it is fixed, so no validation is needed."""
FEATURE_INPUTS: tuple[FeatureName, ...] = ("bands", "bands_mean", "bands_ycc", "bands_image", "views", "image")
MAP_INPUTS: tuple[MapName, ...] = ("map", "map_bands", "pixels")
MEAN = "mean"
"""Only the mean of |D|, the last number of `bands_mean`."""
QUALITIES = (95, 75)
REAL, GENERATED = 0, 1


@dataclass(frozen=True)
class Detectors:
    """Generates images, and fits and evaluates detectors on them."""

    work: Work

    def images(self, seed: int, split: str) -> list[LabelledImage]:
        """Real and generated images in equal numbers."""
        folder, size = self.work.out / "images" / str(seed), self.work.size
        number = {"train": size.num_train, "test": size.num_test}[split]
        if not (folder / "complete").exists():
            say(f"images of seed {seed}")
            embedded_data.main(
                embedded_data.Flags(
                    photos=self.work.photos,
                    out=folder,
                    num_train=size.num_train,
                    num_validation=0,
                    num_test=size.num_test,
                    seed=seed,
                    device=str(self.work.device),
                )
            )
            (folder / "complete").touch()
        found = find_labelled(folder / split)
        classes = [[image for image in found if image.label == label] for label in (REAL, GENERATED)]
        return [one for images in classes for one in evenly(images, number)]

    def settings(self, model: DiffusionModel, variant: Variant) -> DireSettings:
        """Inversion and sampling in five steps on the aligned grid, for two views: 20 network calls per image."""
        return DireSettings.for_model(
            model, steps=20, depth=5, grid="aligned", frequency=variant.frequency, second_view=True
        )

    def _measured(
        self, model: DiffusionModel, settings: DireSettings, images: Sequence[LabelledImage], names: Sequence[InputName]
    ) -> Samples:
        measures = {name: INPUTS[name].measure for name in names}
        return measure(images, self._reconstruct(model, settings, images), measures)

    def _reconstruct(
        self, model: DiffusionModel, settings: DireSettings, images: Sequence[LabelledImage]
    ) -> Iterator[FileResult]:
        cache = ReconstructionCache(folder=self.work.out / "reconstructions", model=model, batch_size=32, workers=2)
        return cache.reconstruct([image.found for image in images], settings)

    def measure(self, variant: Variant, seed: int) -> dict[str, Any]:
        """Scores of every detector on test images, and the errors by band of the real ones."""

        def measured() -> dict[str, Any]:
            model = load(variant.source(seed), device=self.work.device)
            settings = self.settings(model, variant)
            names: list[InputName] = [*FEATURE_INPUTS, *(MAP_INPUTS if self.has_resnet(variant) else ())]
            split = {
                name: self._measured(model, settings, self.images(seed, name), names) for name in ("train", "test")
            }
            scorers = self.scorers(split["train"], split["test"], f"{variant.key}-{seed}")
            test = split["test"]
            return {
                "labels": test.labels.tolist(),
                "scores": {name: score(test).tolist() for name, score in scorers.items()},
                "band_errors": test.inputs["bands"][test.labels == REAL][:, :8].mean(axis=0).tolist(),
                "swaps": dict(self.swaps(model, settings, scorers, test, seed)) if self.is_swapped(variant) else {},
            }

        return self.work.kept(f"detectors/{variant.key}-{seed}", measured)

    def has_resnet(self, variant: Variant) -> bool:
        return self.work.size.all_resnets or (variant.family == "embedded" and variant.frequency == "trained")

    def is_swapped(self, variant: Variant) -> bool:
        return variant.family == "embedded" and variant.name == "base"

    def scorers(self, train: Samples, test: Samples, key: str) -> dict[str, Callable[[Samples], np.ndarray]]:
        """The scores of every detector of one variant."""
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
            num_steps=self.work.size.resnet_steps,
            batch_size=32,
            learning_rate=5e-4,
            decay="cosine",
            ema_rates=(),
            evaluate_every=self.work.size.resnet_steps,
            device="cpu" if self.work.device.type == "cpu" else "auto",
        )
        run = self.work.out / "runs" / f"resnet-{name}-{key}"
        pairs = ((samples.inputs[name], samples.labels) for samples in (train_samples, test))
        say(f"training {run.name}")
        train(MapTask(given, *pairs, seed=0, weights=None), loop, run)
        network = load_resnet50(run / "model" / WEIGHTS_NAME, given.num_channels).to(self.work.device)
        return MapScorer(input=given, network=network)

    def swaps(
        self,
        model: DiffusionModel,
        settings: DireSettings,
        scorers: dict[str, Callable[[Samples], np.ndarray]],
        test: Samples,
        seed: int,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Scores when only one class was compressed as JPEG."""
        for key, images in self.swapped(seed).items():
            samples = self._measured(model, settings, images, list(test.inputs))
            scores = {name: score(samples).tolist() for name, score in scorers.items()}
            yield key, {"labels": samples.labels.tolist(), "scores": scores}

    def swapped(self, seed: int) -> dict[str, list[LabelledImage]]:
        """The test images with one class re-encoded, by class and quality: `generated 75` and so on."""
        return {
            f"{name} {quality}": self.recompressed(seed, label, quality)
            for label, name in ((REAL, "real"), (GENERATED, "generated"))
            for quality in QUALITIES
        }

    def recompressed(self, seed: int, label: int, quality: int) -> list[LabelledImage]:
        """The test images as PNG, with one class compressed as JPEG of this quality (4:2:0) before."""
        folder = self.work.out / "images" / str(seed) / f"jpeg{quality}"
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

    def shipped(self, seed: int) -> dict[str, Any]:
        """The swap test of the embedded detector, with its own settings."""

        def measured() -> dict[str, Any]:
            model, detector = load("default", device=self.work.device), load_detector()
            name = detector.scorer.input.name
            result: dict[str, Any] = {}
            for key, images in ({"unchanged": self.images(seed, "test")} | self.swapped(seed)).items():
                samples = self._measured(model, detector.settings, images, [name])
                scores = detector.scorer.logits_of(samples.inputs[name])
                result[key] = {"labels": samples.labels.tolist(), "scores": {"shipped": scores.tolist()}}
            return result

        return self.work.kept(f"shipped/{seed}", measured)

    def reconstructed(self, label: int) -> tuple[Tensor, Tensor]:
        """Test images of one class, and the embedded model's reconstructions of them."""
        model = load("default", device=self.work.device)
        settings = self.settings(model, Variant("embedded", "base", lambda seed: "default"))
        images = [image for image in self.images(0, "test") if image.label == label]
        results = [result.reconstruction for result in self._reconstruct(model, settings, images)]
        pairs = [(one.x_0, one.x_0_hat) for one in results if one is not None]
        x_0, x_0_hat = (torch.cat(side) for side in zip(*pairs, strict=True))
        return x_0, x_0_hat


def evenly(items: Sequence[LabelledImage], number: int) -> list[LabelledImage]:
    """At most `number` of them, evenly spread."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(number, len(items))).round().astype(int)]
