"""Write the tables and figures of the ablation as Markdown and PNG files."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from ablation.networks import Variant
from ablation.work import Size
from rediffuse.detection.metrics import Interval, bootstrap_aucs, roc_auc
from rediffuse.dire.bands import band_profile, radial_means
from rediffuse.files import write_bytes
from rediffuse.models.frequency import FrequencyGate, highest
from rediffuse.models.layers import timestep_embedding

RESAMPLES = 2000
# These colours can be distinguished with every type of colour vision (Okabe and Ito, 2008).
SPECTRA = {"input": ("#000000", "-"), "reconstruction": ("#56b4e9", "--"), "error": ("#d55e00", "-")}
NAMES = {
    "mean": "mean of \\|D\\|",
    "map": "\\|D\\| (ResNet-50)",
    "bands": "(e, c)",
    "bands_mean": "(e, c) and mean \\|D\\|",
    "bands_ycc": "(e, c) by colour",
    "map_bands": "\\|D\\| and its bands (ResNet-50)",
    "views": "two views",
    "bands_image": "(e, c) and image",
    "image": "image alone (control)",
    "pixels": "pixels (ResNet-50, control)",
    "shipped": "the embedded detector",
}
Measured = Mapping[str, Any]


@dataclass
class Report:
    """Collects tables, prints them, and writes them with the figures below `out`."""

    out: Path
    name: str
    size: Size
    num_seeds: int
    tables: list[str] = field(default_factory=list)

    def cost(self, rows: Sequence[Sequence[str]]) -> None:
        self._table("Cost", rows)

    def quality(self, measured: Mapping[Variant, Sequence[Measured]]) -> None:
        rows = [("U-Net", "frequency", "validation loss", "against its base", "Fréchet distance (least to most)")]
        base: dict[str, np.ndarray] = {}
        for variant, seeds in measured.items():
            losses = np.array([one["losses"] for one in seeds])  # (S, N)
            base.setdefault(variant.family, losses)
            difference = losses - base[variant.family]
            distances = [one["frechet"] for one in seeds]
            rows.append(
                (
                    variant.family,
                    variant.name,
                    f"{losses.mean():.4f}",
                    "" if not difference.any() else _signed(_interval_of_mean(difference)),
                    f"{mean(distances):.2f} ({min(distances):.2f} to {max(distances):.2f})",
                )
            )
        self._table("The U-Net", rows)

    def detectors(self, measured: Mapping[Variant, Sequence[Measured]]) -> None:
        for family in dict.fromkeys(variant.family for variant in measured):
            columns = {variant.name: seeds for variant, seeds in measured.items() if variant.family == family}
            rows = [("detector", *columns)]
            for name, label in NAMES.items():
                if name == "shipped":
                    continue
                cells = [_auc_cell(seeds, name) for seeds in columns.values()]
                if any(cells):
                    rows.append((label, *cells))
            self._table(f"AUC of detectors, errors from the {family} model", rows)
        rows = [("U-Net", "frequency", *(f"band {band}" for band in range(8)))]
        lines = {}
        for variant, seeds in measured.items():
            errors = np.array([one["band_errors"] for one in seeds])
            lines[f"{variant.family}: {variant.name}"] = errors.mean(axis=0)
            rows.append((variant.family, variant.name, *(f"{e:.2f}" for e in errors.mean(axis=0))))
        self._table("Reconstruction error of photographs by band, log(error / image energy)", rows)
        self._draw_errors(lines)

    def swaps(self, measured: Sequence[Measured]) -> None:
        rows = [("detector", "unchanged", *measured[0]["swaps"])]
        for name, label in NAMES.items():
            if name not in measured[0]["scores"]:
                continue
            moved = [[one["swaps"][swap] for one in measured] for swap in measured[0]["swaps"]]
            rows.append((label, _auc_cell(measured, name), *(_auc_cell(seeds, name) for seeds in moved)))
        self._table("Swap test: AUC when only one class was compressed as JPEG, errors from the embedded model", rows)

    def shipped(self, measured: Sequence[Measured]) -> None:
        rows = [("detector", *measured[0])]
        rows.append((NAMES["shipped"], *(_auc_cell([one[key] for one in measured], "shipped") for key in measured[0])))
        self._table("Swap test of the embedded detector", rows)

    def spectra(self, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        figure = Figure(figsize=(9, 3.6), dpi=120, facecolor="white", layout="constrained")
        panels = figure.subplots(1, len(pairs), sharey=True)
        for axes, (name, (x_0, x_0_hat)) in zip(panels, pairs.items(), strict=True):
            axes.set_xlim(0, highest(2))
            powers = radial_means(band_profile(x_0, x_0_hat).powers.mean(dim=0))  # (3, R)
            rho = torch.arange(powers.shape[1]) / x_0.shape[-1]
            for (line, (colour, style)), power in zip(SPECTRA.items(), powers, strict=True):
                axes.semilogy(rho[1:], power[1:].clamp(min=1e-7), style, color=colour, label=line)
            axes.set_xlabel("frequency, cycles per pixel")
            axes.legend(fontsize=8, frameon=False)
            axes.set_title(f"{len(x_0)} {name} images")
        panels[0].set_ylabel("power")
        self._save("spectra", figure)

    def gates(self, networks: Sequence[Any]) -> None:
        """Draw the mean gains of trained gates by band, skip and timestep, averaged over groups and seeds."""
        timesteps = torch.tensor([0, 250, 500, 750, 999])
        gains = torch.stack([self._gains(network, timesteps) for network in networks]).mean(dim=0)  # (T, skips, K)
        limit = float(gains.abs().max())
        figure = Figure(figsize=(9, 3.2), dpi=120, facecolor="white", layout="constrained")
        panels = figure.subplots(1, len(timesteps), sharey=True)
        scale = Normalize(-limit, limit)
        for axes, t, one in zip(panels, timesteps, gains, strict=True):
            axes.imshow(one, cmap="RdBu_r", norm=scale, aspect="auto")
            axes.set_title(f"t = {t}")
            axes.set_xlabel("band")
            axes.set_xticks(range(0, one.shape[1], 2))
        panels[0].set_ylabel("skip connection, fine to coarse")
        figure.colorbar(ScalarMappable(scale, "RdBu_r"), ax=panels, label="mean gain")
        self._save("gates", figure)

    @torch.no_grad()
    def _gains(self, network: Any, timesteps: Tensor) -> Tensor:
        network = network.cpu()
        emb = network.time_embed(timestep_embedding(timesteps, network.config.model_channels))
        gates = [gate for gate in network.frequency if isinstance(gate, FrequencyGate)]
        return torch.stack([gate.gains(emb).mean(dim=1) for gate in gates], dim=1)

    def write(self) -> None:
        amounts = ", ".join(f"{name} {value}" for name, value in asdict(self.size).items())
        text = "\n\n".join([f"Size {self.name} ({amounts}), {self.num_seeds} seeds", *self.tables]) + "\n"
        write_bytes(self.out / "tables.md", text.encode())
        print(f"{self.out / 'tables.md'} and figures beside it")

    def _draw_errors(self, lines: Mapping[str, np.ndarray]) -> None:
        figure = Figure(figsize=(8, 4), dpi=120, facecolor="white", layout="constrained")
        axes = figure.subplots()
        for index, (name, errors) in enumerate(lines.items()):
            axes.plot(errors, "os^vDP*X"[index % 8] + "-", label=name, markersize=4)
        axes.set_xlabel("frequency band, coarse to fine")
        axes.set_ylabel("log(error / image energy)")
        axes.legend(fontsize=7, frameon=False)
        self._save("band_errors", figure)

    def _save(self, name: str, figure: Figure) -> None:
        content = io.BytesIO()
        FigureCanvasAgg(figure).print_png(content)
        write_bytes(self.out / f"{name}.png", content.getvalue())

    def _table(self, title: str, rows: Sequence[Sequence[str]]) -> None:
        lines = [f"| {' | '.join(row)} |" for row in rows]
        lines.insert(1, "|" + " --- |" * len(rows[0]))
        self.tables.append(f"**{title}**\n\n" + "\n".join(lines))
        print("\n" + self.tables[-1], flush=True)


def _auc_cell(seeds: Sequence[Measured], name: str) -> str:
    if name not in seeds[0]["scores"]:
        return ""
    return str(auc_over_seeds([(np.array(one["labels"]), np.array(one["scores"][name])) for one in seeds]))


def auc_over_seeds(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Interval:
    """The mean AUC of several seeds, and its 95 % interval from resampling the seeds and the images of each seed."""
    resampled = np.stack(
        [bootstrap_aucs(labels, scores, resamples=RESAMPLES, seed=seed) for seed, (labels, scores) in enumerate(pairs)]
    )
    picks = np.random.default_rng(0).integers(len(pairs), size=(RESAMPLES, len(pairs)))
    means = resampled[picks, np.arange(RESAMPLES)[:, None]].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(value=float(np.mean([roc_auc(*pair) for pair in pairs])), low=float(low), high=float(high))


def _interval_of_mean(values: np.ndarray) -> Interval:
    """The mean of values (S, N), and its 95 % interval from resampling the seeds and the images of each seed."""
    generator = np.random.default_rng(0)
    num_seeds, num_images = values.shape
    means = [
        np.mean([values[seed][generator.integers(num_images, size=num_images)].mean() for seed in picks])
        for picks in generator.integers(num_seeds, size=(RESAMPLES, num_seeds))
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(value=float(values.mean()), low=float(low), high=float(high))


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
