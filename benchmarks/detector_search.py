"""Compare the inputs of detectors on images of generators and of sources of photographs that were left out.

    python benchmarks/detector_search.py --data FOLDER/aligned --originals FOLDER/originals --out RUN

`benchmarks/detector_data.py` makes the two folders. Every candidate is a logistic regression of features of windows of
32 pixels, pooled over the windows of an image; `benchmarks/new_collections.py` compares networks. Fits, choices and
thresholds never use the fold that they are judged by (nested cross-validation over whole groups). Reconstructions,
denoised windows and results are kept in RUN, so a second call continues, and `rediffuse train detector --out RUN` uses
the same reconstructions.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from script import read_flags
from torch import Tensor
from tqdm import tqdm

from rediffuse.detection.config import InputName
from rediffuse.detection.detector import Detector
from rediffuse.detection.evaluate import Outcome
from rediffuse.detection.features import pooled
from rediffuse.detection.labelled import CLASSES, find_labelled
from rediffuse.detection.metrics import mean_auc
from rediffuse.dire.bands import band_profile
from rediffuse.files import atomic_write, write_bytes
from rediffuse.training.detector import beside_data, measure_inputs
from rediffuse.training.detector_config import DetectorTraining
from rediffuse.training.detector_search import Measured, Search, kind_of
from rediffuse.training.leave_out import assign_folds
from rediffuse.training.reconstructions import ReconstructionCache
from rediffuse.zoo.model import DiffusionModel, load

FEATURES: tuple[InputName, ...] = ("bands", "bands_mean", "bands_ycc", "bands_image")
LIMITS = (0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4)


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Measure windows, fit every candidate, and print a table."""

    data: Path
    """Aligned images, in real/ and generated/."""
    originals: Path
    """The same groups, files as they are."""
    changed: Path | None = None
    """The same groups, blurred copies; never fitted, but the limits hold for them too."""
    out: Path
    model: str = "default"
    windows: int = 8
    """Windows per image."""
    depths: tuple[int, ...] = (2, 5)
    """Depths of the reconstructions, of 20 steps."""
    timesteps: tuple[int, ...] = (5, 20, 50, 200)
    """Timesteps of 1000 whose noise is added for a denoising error."""
    figure: Path | None = None
    """File for a figure of coverage against error."""
    batch_size: int = 32


def main(args: Flags) -> None:
    torch.manual_seed(0)
    model = load(args.model)
    table = Table(args, model)
    depth = table.measured[0]
    for measured in table.measured:
        for name in FEATURES:
            table.add(f"`{name}`, depth {measured.settings.depth}", measured, name)
    both = np.concatenate([one.samples.inputs["bands"] for one in table.measured], axis=1)
    if len(table.measured) > 1:
        table.add("`bands`, all depths", table.with_features(both, sum(one.network_calls for one in table.measured)))
    table.add("mean error", table.with_features(depth.samples.inputs["bands_mean"][:, [16, 33]], depth.network_calls))
    denoised = {t: table.denoising_features(t) for t in args.timesteps}
    for t, features in denoised.items():
        table.add(f"denoising error, t = {t}", table.with_features(features, args.windows))
    if denoised:
        together = np.concatenate(list(denoised.values()), axis=1)
        table.add("denoising errors, every t", table.with_features(together, len(denoised) * args.windows))
    for name in ("image", "image_ycc"):
        table.add(f"control `{name}`", table.with_features(depth.samples.inputs[name], 0))
    table.print()
    if args.figure is not None:
        table.draw(args.figure)


class Table:
    """The data of all candidates, and a row for each."""

    def __init__(self, args: Flags, model: DiffusionModel) -> None:
        self.args, self.model = args, model
        self.config = DetectorTraining(
            data=args.data,
            originals=args.originals,
            changed=args.changed,
            features=FEATURES,
            depths=args.depths,
            crop=f"windows:{args.windows}",
            grid="aligned",
            batch_size=args.batch_size,
        )
        self.cache = ReconstructionCache(
            folder=args.out / "reconstructions", model=model, batch_size=args.batch_size, workers=1
        )
        found = [*find_labelled(args.data), *beside_data(self.config)]
        self.measured = measure_inputs(self.config, self.cache, found)
        samples = self.measured[0].samples
        self.images, self.labels, self.folds = samples.images, samples.labels, assign_folds(samples.images)
        self.kinds = np.array([kind_of(image.found.name) for image in self.images])
        self.rows: dict[str, dict[str, float | str]] = {}

    def with_features(self, features: np.ndarray, network_calls: int) -> Measured:
        """Data whose features (N, F) take the place of `bands`."""
        measured = self.measured[0]
        inputs = measured.samples.inputs | {"bands": features}
        return replace(measured, network_calls=network_calls, samples=replace(measured.samples, inputs=inputs))

    def add(self, name: str, measured: Measured, input_name: InputName = "bands") -> None:
        path = self.args.out / "candidates" / f"{name.replace(' ', '_').replace('`', '')}.json"
        if not path.exists():
            config = replace(self.config, features=(input_name,))
            search = Search(config, [measured], self.args.out / "runs")
            outcomes = self.outcomes(search)
            write_bytes(path, json.dumps(self.figures(name, measured.network_calls, outcomes)).encode())
        self.rows[name] = json.loads(path.read_text())
        print(json.dumps(self.rows[name]), flush=True)

    def outcomes(self, search: Search) -> list[Outcome]:
        """The result for each image, by a detector that was made without its fold."""
        outcomes: dict[int, Outcome] = {}
        for rows, detector, _ in search.without_each(self.folds):
            outcomes |= dict(zip(np.flatnonzero(rows).tolist(), search.outcomes(detector, rows), strict=True))
        return [outcomes[row] for row in range(len(self.labels))]

    def figures(self, name: str, network_calls: int, outcomes: Sequence[Outcome]) -> dict[str, float | str]:
        """A row: AUCs and shares of decisions as means over collections; shares are of the original files."""
        scores = np.array([outcome.probability for outcome in outcomes])
        decisions = np.array([outcome.decision for outcome in outcomes])
        names = np.array([image.collection for image in self.images])

        def auc(kind: int) -> float:
            return mean_auc(*(one[self.kinds == kind] for one in (self.labels, scores, names)))

        def errors(label: int, kind: int) -> dict[str, float]:
            rows, wrong = (self.kinds == kind) & (self.labels == label), CLASSES[1 - label]
            return {one: float((decisions[rows & (names == one)] == wrong).mean()) for one in set(names[rows])}

        shares = {of_class: errors(label, 0) for label, of_class in enumerate(CLASSES)}
        decided = [(decisions[(self.kinds == 0) & (self.labels == label)] != "unsure").mean() for label in (0, 1)]
        worst = {of_class: max(of_name, key=lambda one: of_name[one]) for of_class, of_name in shares.items()}
        of_changed: dict[str, float | str] = {}
        if self.config.changed is not None:
            of_changed = {
                "auc_changed": auc(2),
                "false_alarms_changed": float(np.mean(list(errors(0, 2).values()))),
                "misses_changed": float(np.mean(list(errors(1, 2).values()))),
            }
        return {
            "input": name,
            "network_calls": network_calls,
            "auc_originals": auc(0),
            "auc_aligned": auc(1),
            "false_alarms": float(np.mean(list(shares["real"].values()))),
            "most_false_alarms": f"{shares['real'][worst['real']]:.1%} ({worst['real']})",
            "misses": float(np.mean(list(shares["generated"].values()))),
            "most_misses": f"{shares['generated'][worst['generated']]:.1%} ({worst['generated']})",
            "decided": float(np.mean(decided)),
            **of_changed,
        }

    def windows(self) -> list[Tensor]:
        """The windows (W, 3, S, S) of every image, float16."""
        found = {image.found.name: image.found for image in self.images}
        settings = self.measured[0].settings
        results = {r.found.name: r.reconstruction for r in self.cache.reconstruct(list(found.values()), settings)}
        return [one.x_0.half() for image in self.images if (one := results[image.found.name])]

    def denoising_features(self, t: int) -> np.ndarray:
        """(N, 2 * 2K): relative error and coherence by band of the denoised windows, pooled over windows."""
        path = self.args.out / "denoised" / f"{t}.npy"
        if not path.exists():
            rows = []
            for x_0 in tqdm(self.windows(), f"t = {t}", unit="image"):
                profile = band_profile(x_0.float(), denoised(self.model, x_0.float(), t))
                rows.append(pooled(torch.cat([profile.energies, profile.coherences], dim=1).double().numpy()))
            with atomic_write(path) as file:
                np.save(file, np.stack(rows))
        return np.load(path)

    def print(self) -> None:
        headings = ("input", "network calls", "AUC, originals", "AUC, aligned", "photographs called generated", "worst")
        headings += ("generated called real", "worst", "decided")
        if self.config.changed is not None:
            headings += ("AUC, changed", "photographs called generated", "generated called real")
        print("\n| " + " | ".join(headings) + " |\n|" + " --- |" * len(headings))
        for row in self.rows.values():
            cells = [
                f"{value:.3f}" if "auc" in key else f"{value:.1%}" if isinstance(value, float) else str(value)
                for key, value in row.items()
            ]
            print("| " + " | ".join(cells) + " |")

    def draw(self, path: Path) -> None:
        """For every limit: the share of files that are decided, and the errors on left-out groups."""
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
        for color, name in zip(("C0", "C1"), ("bands", "bands_image"), strict=True):
            search = Search(replace(self.config, features=(name,)), self.measured[:1], self.args.out / "runs")
            made = list(search.without_each(self.folds))
            rows = [self.at_limit(search, made, limit) for limit in LIMITS]
            left.plot(LIMITS, [row["decided"] for row in rows], color, marker="o", label=name)
            for key, style in (("false_alarms", "-"), ("misses", "--")):
                label = f"{name}: {key.replace('_', ' ')}"
                right.plot(LIMITS, [row[key] for row in rows], color, linestyle=style, marker="o", label=label)
        right.plot(LIMITS, LIMITS, "gray", linewidth=0.8, label="the limit")
        left.set(xlabel="limit of both errors", ylabel="share of files decided")
        right.set(xlabel="limit of both errors", ylabel="measured on left-out groups")
        for axes in (left, right):
            axes.legend(fontsize="small")
            axes.grid(alpha=0.3)
        figure.savefig(path)

    def at_limit(
        self, search: Search, made: Sequence[tuple[np.ndarray, Detector, Detector]], limit: float
    ) -> dict[str, float | str]:
        outcomes: dict[int, Outcome] = {}
        for rows, detector, _ in made:
            smallest = detector.left_out.smallest_limit("real"), detector.left_out.smallest_limit("generated")
            moved = detector.with_limits(*(max(limit, one) for one in smallest))
            outcomes |= dict(zip(np.flatnonzero(rows).tolist(), search.outcomes(moved, rows), strict=True))
        return self.figures("", 0, [outcomes[row] for row in range(len(self.labels))])


def denoised(model: DiffusionModel, x_0: Tensor, t: int) -> Tensor:
    """The network's x_0 (W, 3, S, S) for windows with noise of timestep t; the noise of all windows is the same."""
    process = model.process("")
    noise = torch.randn(x_0.shape[1:], generator=torch.Generator().manual_seed(0)).expand_as(x_0)
    with torch.inference_mode():
        return process.predict_x_0(model.network, process.q_sample(x_0, t, noise), t)


if __name__ == "__main__":
    main(read_flags(Flags))
