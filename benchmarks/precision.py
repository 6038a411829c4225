"""Measure what half precision changes in reconstructions and verdicts, against fp32.

    python benchmarks/precision.py --data DATA --out runs/precision --num-images 60

DATA holds images of known class, as for `rediffuse eval detector`. The results of each image are kept in the folder of
`--out`, so that an interrupted call continues. Prints one row per precision: the root mean square difference of the
error maps from those of fp32, beside that of the maps of fp32 themselves; the largest difference of a probability; the
AUC; and how many decisions differ.

With --record, a precision in which no decision and no probability by more than 0.02 differs is written into the
detector's folder as equal, so that `rediffuse detect` uses it where it is fast.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from script import read_flags
from sklearn.metrics import roc_auc_score

from rediffuse.detection.detector import Detector, load_detector
from rediffuse.detection.labelled import LabelledImage, find_labelled
from rediffuse.dire.job import reconstruct_files
from rediffuse.files import write_bytes
from rediffuse.models.config import Precision
from rediffuse.zoo.model import DiffusionModel, load

LARGEST_DIFFERENCE = 0.02
"""Of a probability, with which a precision still counts as equal."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Compare precisions."""

    data: Path
    """Images of known class: a folder or a CSV file, as for `rediffuse eval detector`."""
    out: Path
    """Folder of the results by image."""
    num_images: int = 60
    """Images of each class, evenly spread."""
    precisions: tuple[str, ...] = ("bf16", "fp16")
    """The precisions beside fp32: bf16, fp16."""
    model: str = "default"
    """The model, as an argument of `rediffuse.load`."""
    detector: str = "default"
    """The detector, as an argument of `rediffuse.load_detector`."""
    record: Path | None = None
    """The folder of the detector, to write the equal precisions into."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one."""


def main(flags: Flags) -> None:
    model = load(flags.model, device=flags.device)
    detector = load_detector(flags.detector)
    images = [one for label in (0, 1) for one in _spread(find_labelled(flags.data), label, flags.num_images)]
    precisions: list[Precision] = ["fp32", *(p for p in ("bf16", "fp16") if p in flags.precisions)]
    rows = {p: [_measured(model, detector, image, p, flags.out) for image in images] for p in precisions}
    equal: list[Precision] = []
    labels = [image.label for image in images]
    print(
        "| precision | RMS of the map | difference from fp32 | largest difference of a probability | AUC | decisions |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for precision, of_images in rows.items():
        pairs = list(zip(of_images, rows["fp32"], strict=True))
        error = _rms([one["map"] for one, _ in pairs])
        apart = _rms([_difference(flags.out, image, precision) for image in images])
        farthest = max(abs(one["probability"] - exact["probability"]) for one, exact in pairs)
        auc = roc_auc_score(labels, [one["probability"] for one in of_images])
        flips = sum(one["decision"] != exact["decision"] for one, exact in pairs)
        changed = f"{flips} of {len(pairs)} differ"
        if precision != detector.settings.precision and not flips and farthest <= LARGEST_DIFFERENCE:
            equal.append(precision)
        print(f"| {precision} | {error:.5f} | {apart:.6f} | {farthest:.4f} | {auc:.4f} | {changed} |")
    if flags.record is not None:
        replace(load_detector(flags.record), equal_precisions=tuple(equal)).save(flags.record)
        print(f"{flags.record}: equal precisions: {', '.join(equal) or 'none'}")


def _spread(images: list[LabelledImage], label: int, number: int) -> list[LabelledImage]:
    of_class = [image for image in images if image.label == label]
    return of_class[:: max(1, len(of_class) // number)][:number]


def _measured(model: DiffusionModel, detector: Detector, image: LabelledImage, precision: Precision, out: Path) -> dict:
    """Probability and decision on one image, and the RMS of its map; its error maps are stored beside them."""
    path = _path(out, image, precision)
    if path.exists():
        return json.loads(path.read_text())
    settings = replace(detector.settings, precision=precision)
    [result] = reconstruct_files(model, [image.found], settings, batch_size=detector.settings.num_windows or 1)
    if result.reconstruction is None:
        raise SystemExit(result.reason)
    reconstruction = replace(result.reconstruction, settings=detector.settings)  # only the precision differs
    probability, decision, _ = detector.judge(reconstruction)
    error = reconstruction.map.values
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(error, path.with_suffix(".pt"))
    record = {"probability": probability, "decision": decision, "map": error.square().mean().sqrt().item()}
    write_bytes(path, json.dumps(record).encode())
    return record


def _difference(out: Path, image: LabelledImage, precision: Precision) -> float:
    error, exact = (torch.load(_path(out, image, p).with_suffix(".pt")) for p in (precision, "fp32"))
    return (error - exact).square().mean().sqrt().item()


def _rms(values: list[float]) -> float:
    return (sum(value**2 for value in values) / len(values)) ** 0.5


def _path(out: Path, image: LabelledImage, precision: str) -> Path:
    return out / precision / f"{image.found.name}.json"


if __name__ == "__main__":
    main(read_flags(Flags))
