"""Training a detector: reconstruct, fit, and choose, calibrate and report by images that were left out of the fit.

Real and generated images go through the same decoder, crop and reconstruction, also if their file formats differ.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rediffuse.detection.audit import AUDITED, audit, audit_folder, audit_labelled
from rediffuse.detection.config import InputName
from rediffuse.detection.detector import CONTROL, SUBFOLDER, Detector
from rediffuse.detection.evaluate import Evaluation, evaluate, evaluation_table, judge_results
from rediffuse.detection.features import INPUTS, MapInput, detector_input
from rediffuse.detection.labelled import LabelledImage, find_labelled
from rediffuse.detection.left_out import ENOUGH, Label
from rediffuse.dire.reconstruct import network_calls
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import ConfigError
from rediffuse.files import claim, write_bytes
from rediffuse.images.find import FoundImage
from rediffuse.progress import Progress, counted, unobserved
from rediffuse.records import dump
from rediffuse.training.detector_config import DetectorTraining
from rediffuse.training.detector_search import BESIDE_DATA, Measured, Search
from rediffuse.training.leave_out import assign_folds, plan_of_splits
from rediffuse.training.reconstructions import ReconstructionCache, StoredMaps
from rediffuse.training.samples import measure
from rediffuse.zoo.model import DiffusionModel

SPLITS = ("train", "validation", "test")
LOGGER = logging.getLogger(__name__)


def train_detector(
    config: DetectorTraining, model: DiffusionModel, folder: Path, *, progress: Progress = unobserved
) -> Evaluation:
    """Audit the data, search, fit and report; the same call resumes a training that was stopped.

    With `train/`, `validation/` and `test/` in the data, classifiers are fitted on the first, chosen and calibrated on
    the second, and the figures are those of the third. Otherwise whole groups are left out, in at most
    `leave_out.MOST_FOLDS` folds: classifier, calibration and thresholds are chosen by images of left-out groups. For
    the figures all of this is repeated without each fold, and applied to it (nested cross-validation).

    The conclusion of the audit (`detection.audit`), from at most `AUDITED` files of each class, is logged and written
    to `report.json`. It does not stop the training.

    Args:
        config: the data and the candidates.
        model: the diffusion model that reconstructs the images.
        folder: gets `detector/` (with `control/` inside), `report.json` and `report.txt`. `reconstructions/` and
            `runs/` are caches for a second call, and may be removed.
        progress: called with the number of images that are audited and reconstructed, and the number of steps of a
            ResNet-50.

    Returns:
        The figures on images that were left out.

    Raises:
        InputError: a folder of the data is missing, or none of its images can be used.
        ConfigError: a setting does not fit the model or the data.
        StorageError: a file cannot be written, or another process is writing to the folder.
        TrainingStopped: a signal ended the training of a ResNet-50.
    """
    with claim(folder):
        return _train_detector(config, model, folder, progress)


def _train_detector(config: DetectorTraining, model: DiffusionModel, folder: Path, progress: Progress) -> Evaluation:
    has_splits = (config.data / SPLITS[0]).is_dir()
    images = _splits(config) if has_splits else find_labelled(config.data, config.decoding)
    for name in BESIDE_DATA:
        if has_splits and getattr(config, name) is not None:
            raise ConfigError(f"{name}={getattr(config, name)}: is for data without the folders {', '.join(SPLITS)}")
    maps = [name for name in config.features if isinstance(INPUTS[name], MapInput)]
    if maps and not has_splits:
        raise ConfigError(f"features={maps[0]}: needs the folders {', '.join(SPLITS)} in {config.data}")
    to_audit = audit_folder(config.data, config.decoding) if has_splits else audit_labelled(images)
    audited = audit(to_audit, max_files=AUDITED, workers=config.workers, progress=progress)
    LOGGER.log(logging.INFO if audited.can_carry_a_claim else logging.WARNING, "%s", audited.line)
    cache = (
        StoredMaps(folder=config.maps, model=model, workers=config.workers)
        if config.maps
        else ReconstructionCache(
            folder=folder / "reconstructions", model=model, batch_size=config.batch_size, workers=config.workers
        )
    )
    if has_splits:
        test = [image for image in images if _is_in("test", image)]
        measured = measure_inputs(config, cache, [image for image in images if image not in test], progress)
        search = Search(config, measured, folder / "runs", progress)
        in_train = np.array([_is_in("train", image) for image in search.images])
        detector, control, choices = search.detectors(plan_of_splits(in_train))
        results = counted(cache.reconstruct(_found(test), detector.settings), "test", len(test), progress)
        evaluation = evaluate(judge_results(detector, control, test, results))
    else:
        images = images + beside_data(config)
        search = Search(config, measure_inputs(config, cache, images, progress), folder / "runs", progress)
        folds = assign_folds(search.images)
        detector, control, choices = search.detectors(search.plan(folds))
        evaluation = search.cross_validated(folds)
    provenance = {"model": dump(model.provenance)}
    detector = replace(detector, training={**detector.training, **provenance})
    control = replace(control, training={**control.training, **provenance})
    _warn_of_limits(detector, config)
    detector.save(folder / SUBFOLDER)
    control.save(folder / SUBFOLDER / CONTROL)
    report = {
        "settings": dump(detector.settings),
        "detector": detector.training,
        "control": control.training,
        "candidates": [{**dump(choice.candidate), "left_out_auc": choice.left_out_auc} for choice in choices],
        "audit": audited.line,
        "evaluation": dump(evaluation),
    }
    write_bytes(folder / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    write_bytes(folder / "report.txt", (evaluation_table(evaluation) + "\n").encode())
    return evaluation


def measure_inputs(
    config: DetectorTraining,
    cache: ReconstructionCache | StoredMaps,
    images: Sequence[LabelledImage],
    progress: Progress = unobserved,
) -> list[Measured]:
    """The inputs at every depth. Inputs with a second view have separate settings, as they cost more calls."""
    measured = []
    views = sorted({INPUTS[name].needs_second_view for name in config.features})
    for settings in [_settings(config, cache.model, depth, view) for depth in config.depths for view in views]:
        names: list[InputName] = [
            name for name in config.features if INPUTS[name].needs_second_view == settings.second_view
        ]
        results = counted(cache.reconstruct(_found(images), settings), f"depth {settings.depth}", len(images), progress)
        samples = measure(images, results, {name: detector_input(name, settings).measure for name in _needed(names)})
        calls = network_calls(cache.model, settings)
        measured.append(Measured(settings=settings, network_calls=calls, samples=samples))
    # An image whose reconstruction is not finite at one depth is left out at every depth.
    common = set.intersection(*({image.found.name for image in one.samples.images} for one in measured))
    return [replace(one, samples=one.samples.only(common)) for one in measured]


def _settings(config: DetectorTraining, model: DiffusionModel, depth: int, second_view: bool) -> DireSettings:
    return DireSettings.for_model(
        model,
        steps=config.steps,
        depth=depth,
        clip=config.clip,
        precision=config.precision,
        grid=config.grid,
        solver=config.solver,
        spacing=config.spacing,
        crop=config.crop,
        frequency=config.frequency,
        prompt=config.prompt,
        guidance_scale=config.guidance_scale,
        second_view=second_view,
    )


def _needed(names: Sequence[InputName]) -> list[InputName]:
    """The inputs, their controls, and the features for the distance to the training images."""
    with_controls: list[InputName] = [*names, *(INPUTS[name].control for name in names)]
    return list(dict.fromkeys([*with_controls, *(INPUTS[name].familiar for name in with_controls)]))


def _warn_of_limits(detector: Detector, config: DetectorTraining) -> None:
    """Log which limits do not hold for unseen groups, and which are larger than they should be."""
    limits: tuple[tuple[Label, str], ...] = (("real", "max_false_alarms"), ("generated", "max_misses"))
    for label, name in limits:
        wanted, used, left_out = getattr(config.limits, name), getattr(detector.thresholds, name), detector.left_out
        if not left_out.is_for_unseen(label):
            count = len(getattr(left_out, label))
            LOGGER.warning(
                "%s=%s holds for the groups of the training only: there are %d groups of %s images, and %d are needed "
                "for a limit on unseen groups",
                *(name, wanted, count, label, ENOUGH),
            )
        if used > wanted:
            LOGGER.warning("%s=%s: there are too few %s images for this limit; %.3g is used", name, wanted, label, used)


def beside_data(config: DetectorTraining) -> list[LabelledImage]:
    """The images of `config.originals` and `config.changed`, with names that begin with that of the field."""
    folders = {name: getattr(config, name) for name in BESIDE_DATA}
    return [
        _below(name, image)
        for name, folder in folders.items()
        if folder
        for image in find_labelled(folder, config.decoding)
    ]


def _splits(config: DetectorTraining) -> list[LabelledImage]:
    """The images of all splits, with names that begin with that of the split."""
    return [_below(split, image) for split in SPLITS for image in find_labelled(config.data / split, config.decoding)]


def _below(folder: str, image: LabelledImage) -> LabelledImage:
    return replace(image, found=replace(image.found, name=f"{folder}/{image.found.name}"))


def _is_in(folder: str, image: LabelledImage) -> bool:
    return image.found.name.startswith(f"{folder}/")


def _found(images: Sequence[LabelledImage]) -> list[FoundImage]:
    return [image.found for image in images]
