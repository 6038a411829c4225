"""Compare small networks with the embedded detector on collections of photographs that they were made without.

    python benchmarks/new_collections.py --data FOLDER/aligned --originals FOLDER/originals --changed FOLDER/blurred \\
        --out RUN

`benchmarks/detector_data.py` and `rediffuse align` make the folders. The candidates are the input of the embedded
detector and its control (logistic regressions), convolutional networks of three layers on the errors of the windows of
an image, on the windows themselves and on both, whose logits are averaged over the windows, and the mean of the
regression and the network on the errors. Each is fitted without a fold of generators, and without a whole collection of
photographs, or without a fold of each collection. Calibration, thresholds and the largest distance follow, as in
`rediffuse train detector`, from the images that the fits without the other folds leave out; a collection that is left
out has no part in them.

Reconstructions and logits are kept in RUN, so an interrupted call continues. RUN is for one set of images and
photographs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from script import read_flags
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from rediffuse.detection.assemble import LeftOutResults, operating_point
from rediffuse.detection.config import InputName
from rediffuse.detection.familiarity import fit_familiarity
from rediffuse.detection.features import FeatureSet, detector_input
from rediffuse.detection.labelled import find_labelled
from rediffuse.detection.metrics import roc_auc
from rediffuse.dire.reconstruct import Reconstruction
from rediffuse.files import atomic_write
from rediffuse.images.find import FoundImage, find_images
from rediffuse.training.detector import beside_data, measure_inputs
from rediffuse.training.detector_config import DetectorTraining
from rediffuse.training.detector_search import fit_bands, kind_of
from rediffuse.training.leave_out import assign_folds
from rediffuse.training.reconstructions import ReconstructionCache
from rediffuse.zoo.model import load

REGRESSIONS: dict[InputName, float] = {"bands_image": 0.003, "image": 0.01}
"""The input of the embedded detector and its control, each with its C."""
NETWORKS: dict[str, InputName] = {"errors": "bands", "windows": "image", "errors and windows": "bands_image"}
"""The inputs of networks, each with the features of the distance to the training images."""
NONE = "none"
HEADINGS = (
    *("input", "left out", "AUC", "photographs called generated", "called real", "generated called generated"),
    *("called real", "worst", "decided", "blurred photographs called generated", "blurred generated called real"),
    "other photographs called generated",
)
EPOCHS, BATCH, FOLDS = 10, 256, 4


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Fit every candidate without each collection of photographs, and print a table."""

    data: Path
    """Aligned images, in real/ and generated/; only these are fitted."""
    originals: Path
    """The same groups, files as they are; the table is about them."""
    changed: Path
    """The same groups, blurred copies; the limits hold for them too."""
    photographs: Path | None = None
    """Photographs of other sources, whose share called generated is printed."""
    out: Path
    model: str = "default"
    windows: int = 8
    """Windows per image."""
    depth: int = 2
    """Depth of the reconstructions, of 20 steps."""
    batch_size: int = 32


Logits = dict[tuple[str, int], np.ndarray]
"""By the collection (or `NONE`) and the fold that a fit leaves out: the logits of all images (N + P,)."""


def main(args: Flags) -> None:
    comparison = Comparison(args)
    print("\n| " + " | ".join(HEADINGS) + " |\n|" + " --- |" * len(HEADINGS))
    for name, familiar, logits in comparison.candidates():
        for collection in comparison.left_out:
            cells = comparison.row(logits, familiar, collection)
            print(f"| {name} | {collection} | {' | '.join(cells)} |", flush=True)


class Comparison:
    """The images, their inputs, and the fits of all candidates. P photographs of other sources follow the N images."""

    def __init__(self, args: Flags) -> None:
        self.args = args
        self.config = DetectorTraining(
            data=args.data,
            originals=args.originals,
            changed=args.changed,
            features=("bands", "bands_image"),
            depths=(args.depth,),
            crop=f"windows:{args.windows}",
            grid="aligned",
            batch_size=args.batch_size,
        )
        self.cache = ReconstructionCache(
            folder=args.out / "reconstructions", model=load(args.model), batch_size=args.batch_size, workers=1
        )
        found = [*find_labelled(args.data), *beside_data(self.config)]
        (measured,) = measure_inputs(self.config, self.cache, found)
        self.settings, samples = measured.settings, measured.samples
        self.images, self.labels, self.folds = samples.images, samples.labels, assign_folds(samples.images) % FOLDS
        self.kinds = np.array([kind_of(image.found.name) for image in self.images])
        self.collections = np.array([image.collection for image in self.images])
        self.left_out = [NONE, *np.unique(self.collections[self.labels == 0]).tolist()]
        self.generators = np.unique(self.collections[self.labels == 1]).tolist()
        others = [] if args.photographs is None else find_images([args.photographs])
        self.others = self.reconstructions(others)
        self.inputs = {
            name: np.concatenate([values, *(detector_input(name, self.settings).measure(one) for one in self.others)])
            for name, values in samples.inputs.items()
        }
        own = [len(one.windows) for one in self.others]
        self.num_windows = np.concatenate([samples.num_windows, np.array(own, int)])
        self.fits = {
            (collection, fold): (self.kinds == 1) & (self.folds != fold) & (self.collections != collection)
            for collection in self.left_out
            for fold in range(FOLDS)
        }

    def reconstructions(self, found: Sequence[FoundImage]) -> list[Reconstruction]:
        results = {one.found.name: one.reconstruction for one in self.cache.reconstruct(found, self.settings)}
        return [one for image in found if (one := results[image.name])]

    @cached_property
    def windows(self) -> dict[str, list[Tensor]]:
        """The windows (W, 3, S, S), float16, of all images, their errors, and both (W, 6, S, S)."""
        kept = [*self.reconstructions([image.found for image in self.images]), *self.others]
        return {
            "errors": [one.error.half() for one in kept],
            "windows": [one.x_0.half() for one in kept],
            "errors and windows": [torch.cat([one.error, one.x_0], dim=1).half() for one in kept],
        }

    def candidates(self) -> Iterator[tuple[str, InputName, Logits]]:
        """The name of each, the features of its distances, and its logits."""
        regressions = {name: self.regression_logits(name, penalty) for name, penalty in REGRESSIONS.items()}
        networks = {name: self.network_logits(name) for name in NETWORKS}
        yield from ((f"`{name}`", name, logits) for name, logits in regressions.items())
        yield from ((f"network on {name}", NETWORKS[name], logits) for name, logits in networks.items())
        both = regressions["bands_image"], networks["errors"]
        mean = {key: sum(one[key] / one[key][: len(fit)][fit].std() for one in both) for key, fit in self.fits.items()}
        yield "mean of `bands_image` and network on errors", "bands_image", mean

    def regression_logits(self, name: InputName, inverse_penalty: float) -> Logits:
        given, inputs = detector_input(name, self.settings), self.inputs[name]
        assert isinstance(given, FeatureSet)
        return {
            key: fit_bands(given, inputs[: len(fit)][fit], self.labels[fit], inverse_penalty).logits_of(inputs)
            for key, fit in self.fits.items()
        }

    def network_logits(self, name: str) -> Logits:
        """The mean logit of each image's windows, by the network of each fit."""
        images, logits = self.windows[name], {}
        sizes = [len(windows) for windows in images]
        for (collection, fold), fit in tqdm(self.fits.items(), f"network on {name}", unit="fit"):
            path = self.args.out / "networks" / f"{name}-{collection}-{fold}.npy"
            if not path.exists():
                rows = np.flatnonzero(fit).tolist()
                labels = torch.cat([torch.full((sizes[row],), float(self.labels[row])) for row in rows])
                network = trained_network(torch.cat([images[row] for row in rows]), labels)
                with torch.inference_mode():
                    of_windows = torch.cat([applied(network, part) for part in torch.cat(images).split(512)])
                with atomic_write(path) as file:
                    np.save(file, [part.mean().item() for part in of_windows.split(sizes)])
            logits[collection, fold] = np.load(path)
        return logits

    def decisions(self, logits: Logits, familiar: InputName, collection: str) -> list[np.ndarray]:
        """For each fold the decisions (N + P,) by its fit; thresholds from the images of the other folds."""
        features, count = self.inputs[familiar], len(self.images)
        own_logits, own_distances, distances = np.empty(count), np.empty(count), []
        for fold in range(FOLDS):
            fit, own = self.fits[collection, fold], np.flatnonzero(self.folds == fold)
            distances.append(fit_familiarity(features[:count][fit], self.labels[fit]).distances(features))
            own_logits[own], own_distances[own] = logits[collection, fold][own], distances[fold][own]
        made = []
        for fold in range(FOLDS):
            rows = np.flatnonzero((self.folds != fold) & (self.collections != collection))
            results = LeftOutResults(
                images=[self.images[row] for row in rows],
                logits=own_logits[rows],
                distances=own_distances[rows],
                kinds=self.kinds[rows],
            )
            point = operating_point(results, self.config.limits)
            scores = point.calibration.probabilities(logits[collection, fold])
            decided = np.array([point.thresholds.decide(score) for score in scores.tolist()])
            fewest = self.num_windows[: len(self.images)][self.fits[collection, fold]].min()
            is_unlike = (distances[fold] > point.farthest) | (self.num_windows < fewest)
            made.append(np.where(is_unlike, "unsure", decided))
        return made

    def row(self, logits: Logits, familiar: InputName, collection: str) -> list[str]:
        """The cells of a row: figures of images that were left out, as means over folds and over generators."""
        made = self.decisions(logits, familiar, collection)

        def photographs(kind: int, fold: int) -> np.ndarray:
            left_out = self.folds == fold if collection == NONE else self.collections == collection
            return np.flatnonzero((self.labels == 0) & (self.kinds == kind) & left_out)

        def generated(kind: int, generator: str) -> tuple[np.ndarray, int]:
            rows = np.flatnonzero((self.collections == generator) & (self.kinds == kind))
            return rows, int(self.folds[rows[0]])

        def shares(kind: int, decision: str) -> tuple[float, dict[str, float]]:
            """Of the photographs, and of the images of each generator."""
            own = [(made[fold][photographs(kind, fold)] == decision).mean() for fold in range(FOLDS)]
            of_generators = {name: generated(kind, name) for name in self.generators}
            return float(np.mean(own)), {
                name: float((made[fold][rows] == decision).mean()) for name, (rows, fold) in of_generators.items()
            }

        aucs = []
        for rows, fold in (generated(0, name) for name in self.generators):
            both = np.concatenate([rows, photographs(0, fold)])
            aucs.append(roc_auc(self.labels[both], logits[collection, fold][both]))
        (false_alarms, found), (right, missed) = shares(0, "generated"), shares(0, "real")
        (blurred_false_alarms, _), (_, blurred_missed) = shares(2, "generated"), shares(2, "real")
        of_four = [false_alarms, right, float(np.mean([*found.values()])), float(np.mean([*missed.values()]))]
        worst = max(missed, key=lambda name: missed[name])
        others = np.concatenate([decisions[len(self.images) :] for decisions in made])
        return [
            f"{np.mean(aucs):.3f}",
            *(f"{mean:.1%}" for mean in of_four),
            f"{missed[worst]:.1%} ({worst})",
            f"{sum(of_four) / 2:.1%}",
            f"{blurred_false_alarms:.1%}",
            f"{np.mean([*blurred_missed.values()]):.1%}",
            f"{(others == 'generated').mean():.1%}" if self.others else "",
        ]


def trained_network(windows: Tensor, labels: Tensor) -> nn.Module:
    """A network from windows (N, C, S, S) to logits (N, 1), in eval mode; each class has the same weight."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = [nn.BatchNorm2d(windows.shape[1])]
    channels = windows.shape[1]
    for width, stride in ((24, 1), (48, 2), (96, 2)):
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels, 1))
    network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    num_steps = len(labels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, EPOCHS * num_steps)
    weight = (labels == 0).sum() / (labels == 1).sum()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels), generator=generator).split(BATCH)[:num_steps]:
            turns, flip = (int(torch.randint(most, (), generator=generator)) for most in (4, 2))
            batch = torch.rot90(windows[rows], turns, (2, 3))
            logits = applied(network, batch.flip(3) if flip else batch)
            loss = F.binary_cross_entropy_with_logits(logits, labels[rows], pos_weight=weight)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def applied(network: nn.Module, windows: Tensor) -> Tensor:
    """The logits (N,) of windows (N, C, S, S); bf16, because it is faster on processors that have it."""
    with torch.autocast("cpu", torch.bfloat16):
        return network(windows.float().contiguous(memory_format=torch.channels_last))[:, 0].float()


if __name__ == "__main__":
    main(read_flags(Flags))
