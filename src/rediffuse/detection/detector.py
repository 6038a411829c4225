"""A detector: a classifier of reconstructions with its settings, calibration and thresholds.

Its folder holds `detector.json` (settings, calibration, thresholds, record of the training), `detector.safetensors`
(weights), and `control/`, a detector that was trained in the same way on the images alone; it may be missing where a
detector was made by other means. The record also holds the left-out probabilities, from which other thresholds can be
chosen without a new training.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from rediffuse.detection.calibration import Calibration, Thresholds
from rediffuse.detection.config import InputName
from rediffuse.detection.familiarity import Familiarity
from rediffuse.detection.features import FeatureSet, MapInput, detector_input, feature_set
from rediffuse.detection.left_out import LeftOut
from rediffuse.detection.resnet import ResNet50
from rediffuse.detection.scorers import BandScorer, MapScorer, Scorer
from rediffuse.detection.verdict import BETWEEN, Decision
from rediffuse.dire.reconstruct import Reconstruction
from rediffuse.dire.settings import DireSettings, require_same
from rediffuse.errors import CheckpointError, ConfigError, InputError
from rediffuse.files import atomic_folder, write_bytes
from rediffuse.models.checkpoints import load_into, read_state_dict, require_finite, write_state_dict
from rediffuse.models.config import Precision, PrecisionChoice
from rediffuse.records import dump, parse, read_json
from rediffuse.zoo.model import resolve_device
from rediffuse.zoo.precision import choose_precision
from rediffuse.zoo.published import DEFAULT, default_folder

RECORD_FILE = "detector.json"
WEIGHTS_FILE = "detector.safetensors"
SUBFOLDER = "detector"
"""The subfolder of a run folder, or of the embedded model, that holds the detector."""
CONTROL = "control"
"""The subfolder of a detector's folder that holds its control."""

UNFAMILIAR = "unlike the images this detector was trained on"
NO_NUMBER = "the detector's score is not a number"


@dataclass(frozen=True, kw_only=True)
class DetectorRecord:
    """The content of `detector.json`."""

    input: InputName
    """The classifier's input: features for a logistic regression, a map for a ResNet-50."""
    feature_names: tuple[str, ...]
    """Names of the features of the distance to the training images (and of the logistic regression), in order."""
    settings: DireSettings
    calibration: Calibration
    thresholds: Thresholds
    left_out: LeftOut
    familiarity_limit: float
    """See `Familiarity.limit`."""
    training: dict[str, Any]
    """The record of the training: data, candidates, validation figures."""
    equal_precisions: tuple[Precision, ...] = ()
    """See `Detector.equal_precisions`."""
    fewest_windows: int = 0
    """See `Familiarity.fewest_windows`."""

    def __post_init__(self) -> None:
        if not self.familiarity_limit >= 0:  # NaN too, with which no image would be unfamiliar
            raise ConfigError(f"familiarity_limit={self.familiarity_limit}: at least 0 is needed")


@dataclass(frozen=True, kw_only=True, repr=False)
class Detector:
    """Computes the probability that an image is generated from its reconstruction, and the decision.

    With settings of `crop="windows:N"` all rows of a reconstruction are windows of one image, and results are those of
    this image, N = 1.
    """

    scorer: Scorer
    familiarity: Familiarity
    settings: DireSettings
    """The settings of the training; reconstructions made with other settings are refused."""
    calibration: Calibration
    thresholds: Thresholds
    left_out: LeftOut
    """The probabilities that the thresholds were chosen from."""
    training: dict[str, Any]
    equal_precisions: tuple[Precision, ...] = ()
    """Precisions beside that of the settings for which it was shown that verdicts are equal
    (`benchmarks/precision.py`); reconstructions with them are accepted too."""
    sha256: str | None = None
    """SHA-256 of `detector.json` followed by `detector.safetensors`; None for a detector that was not loaded."""

    def __repr__(self) -> str:
        """Input, thresholds and settings, not the weights."""
        return f"Detector(input={self.scorer.input.name!r}, thresholds={self.thresholds}, settings={self.settings})"

    @property
    def kind(self) -> Literal["bands", "map"]:
        return "bands" if isinstance(self.scorer.input, FeatureSet) else "map"

    def probabilities(self, reconstruction: Reconstruction) -> np.ndarray:
        """(N,) float64 in [0, 1]: the probability that the image is generated, if half of all images are.

        Raises:
            SettingsMismatch: the reconstruction was made with other settings; names each field and both values.
        """
        self._require_own_settings(reconstruction)
        return self.calibration.probabilities(self.scorer.logits(reconstruction))

    def distances(self, reconstruction: Reconstruction) -> np.ndarray:
        """(N,) float64: the distance of an image from the training images; above `familiarity.limit` it is `unsure`.

        Raises:
            SettingsMismatch: as in `probabilities`.
        """
        self._require_own_settings(reconstruction)
        features = self._familiar().measure(reconstruction)
        return self.familiarity.distances(features, np.full(len(features), len(reconstruction.windows)))

    def explain(self, reconstruction: Reconstruction) -> np.ndarray:
        """(N, K) float64: the contribution of each frequency band to the calibrated logit; positive for `generated`.

        Raises:
            SettingsMismatch: as in `probabilities`.
        """
        self._require_own_settings(reconstruction)
        return self.calibration.slope * self.scorer.contributions(reconstruction)

    def explain_windows(self, reconstruction: Reconstruction) -> np.ndarray:
        """(N,) float64: by how much the calibrated logit falls without a window of the image.

        Positive for `generated`; of a single window the whole logit. Empty where the settings have no windows.

        Raises:
            SettingsMismatch: as in `probabilities`.
        """
        self._require_own_settings(reconstruction)
        if self.settings.num_windows is None or not isinstance(self.scorer, BandScorer):
            return np.empty(0)
        return self.calibration.slope * self.scorer.window_contributions(reconstruction)

    def judge(self, reconstruction: Reconstruction) -> tuple[float, Decision, str | None]:
        """The probability and the decision on one image, and the reason if it is `unsure`.

        Raises:
            SettingsMismatch: as in `probabilities`.
        """
        probability = float(self.probabilities(reconstruction)[0])
        return probability, *self.decide(probability, float(self.distances(reconstruction)[0]))

    def decide(self, probability: float, distance: float) -> tuple[Decision, str | None]:
        """The decision on one image, and the reason if it is `unsure`."""
        if np.isnan(probability) or np.isnan(distance):
            return "unsure", NO_NUMBER
        if distance > self.familiarity.limit:
            return "unsure", UNFAMILIAR
        decision = self.thresholds.decide(probability)
        return decision, BETWEEN if decision == "unsure" else None

    def settings_on(self, device: torch.device, precision: PrecisionChoice = "auto") -> DireSettings:
        """The settings of reconstructions for it on a device.

        Args:
            device: the device of the model.
            precision: `auto` is the fastest one on the device among those that the detector accepts.

        Raises:
            ConfigError: the detector does not accept the precision; names those that it accepts.
        """
        accepted = (self.settings.precision, *self.equal_precisions)
        chosen = choose_precision(precision, device)
        if chosen not in accepted:
            if precision != "auto":
                allowed = ", ".join(("auto", *accepted))
                raise ConfigError(
                    f"precision={precision}: was not shown to be equal for this detector; {allowed} are allowed"
                )
            chosen = self.settings.precision
        return replace(self.settings, precision=chosen)

    def with_limits(self, max_false_alarms: float | None = None, max_misses: float | None = None) -> Self:
        """The same detector with thresholds for other limits; None keeps a limit.

        Raises:
            ConfigError: see `LeftOut.thresholds`.
        """
        thresholds = self.left_out.thresholds(
            self.thresholds.max_false_alarms if max_false_alarms is None else max_false_alarms,
            self.thresholds.max_misses if max_misses is None else max_misses,
        )
        return replace(self, thresholds=thresholds)

    def to(self, device: torch.device | str) -> Self:
        """Move the weights, in place."""
        if isinstance(self.scorer, MapScorer):
            self.scorer.network.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Write `detector.json` and `detector.safetensors` into `folder`.

        Raises:
            StorageError: they could not be written.
        """
        record = DetectorRecord(
            input=self.scorer.input.name,
            feature_names=self._familiar().names,
            settings=self.settings,
            calibration=self.calibration,
            thresholds=self.thresholds,
            left_out=self.left_out,
            familiarity_limit=self.familiarity.limit,
            training=self.training,
            equal_precisions=self.equal_precisions,
            fewest_windows=self.familiarity.fewest_windows,
        )
        tensors = self.scorer.tensors() | {
            "familiarity.centres": torch.from_numpy(self.familiarity.centres),
            "familiarity.precision": torch.from_numpy(self.familiarity.precision),
        }
        write_state_dict(folder / WEIGHTS_FILE, tensors)
        write_bytes(folder / RECORD_FILE, (json.dumps(dump(record), indent=2) + "\n").encode())

    def _familiar(self) -> FeatureSet:
        return feature_set(self.scorer.input.familiar, self.settings)

    def _require_own_settings(self, reconstruction: Reconstruction) -> None:
        given = reconstruction.settings
        if given.precision in self.equal_precisions:
            given = replace(given, precision=self.settings.precision)
        require_same(given=given, expected=self.settings, owner="the detector")


def load_detector(source: str | Path = DEFAULT, *, device: torch.device | str = "cpu") -> Detector:
    """Load a detector from a folder.

    Args:
        source: a run folder of `rediffuse train detector`, its subfolder `detector`, or a folder that `Detector.save`
            wrote; `"default"` is the embedded detector.
        device: the device of a ResNet-50; `"auto"` is the machine's accelerator, or the CPU if it has none.

    Raises:
        InputError: there is no `detector.json`.
        ConfigError: a field of the file is missing or wrong.
        CheckpointError: the weights do not fit it, some of them are NaN or infinite, or this version computes other
            features.
    """
    path = _record_path(source)
    fields = read_json(path)
    if "left_out" not in fields:
        raise CheckpointError(
            f"{path}: made by a version that kept no left-out scores; `rediffuse train detector --data DATA --out RUN` "
            "makes a new one"
        )
    record = parse(DetectorRecord, fields, str(path))
    weights = path.with_name(WEIGHTS_FILE)
    tensors = read_state_dict(weights)
    scorer = _scorer(detector_input(record.input, record.settings), tensors, weights)
    if feature_set(scorer.input.familiar, record.settings).names != record.feature_names:
        raise CheckpointError(f"{path}: this version of rediffuse computes other features; train the detector again")
    count = len(record.feature_names)
    familiarity = Familiarity(
        centres=_array(tensors, "familiarity.centres", (2, count), weights),
        precision=_array(tensors, "familiarity.precision", (count, count), weights),
        limit=record.familiarity_limit,
        fewest_windows=record.fewest_windows,
    )
    return Detector(
        scorer=scorer,
        familiarity=familiarity,
        settings=record.settings,
        calibration=record.calibration,
        thresholds=record.thresholds,
        left_out=record.left_out,
        training=record.training,
        equal_precisions=record.equal_precisions,
        sha256=hashlib.sha256(path.read_bytes() + weights.read_bytes()).hexdigest(),
    ).to(resolve_device(device))


def check_detector_folder(folder: Path) -> None:
    """Check that `save_with_control` may write to `folder`: it does not exist, or holds a detector and nothing else.

    Raises:
        InputError: it holds something else, or is a file.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; a folder is needed")
    others = sorted({path.name for path in folder.iterdir()} - {RECORD_FILE, WEIGHTS_FILE, CONTROL})
    if others:
        raise InputError(f"{folder}: holds {others[0]}, which is no part of a detector; give another folder")


def save_with_control(folder: Path, detector: Detector, control: Detector | None) -> None:
    """Write a detector, and its control if there is one; a detector that is there is replaced as a whole or not at all.

    Raises:
        InputError: see `check_detector_folder`.
        StorageError: the folder cannot be written.
    """
    check_detector_folder(folder)
    with atomic_folder(folder) as partial:
        detector.save(partial)
        if control is not None:
            control.save(partial / CONTROL)


def load_control(source: str | Path = DEFAULT, *, device: torch.device | str = "cpu") -> Detector | None:
    """Load the control of a detector, or None if its folder holds none; see `load_detector`."""
    folder = _record_path(source).parent / CONTROL
    return load_detector(folder, device=device) if (folder / RECORD_FILE).is_file() else None


def _record_path(source: str | Path) -> Path:
    """The path of `detector.json` in a detector's folder or a run folder."""
    folder = default_folder() if source == DEFAULT else Path(source)
    for path in (folder / RECORD_FILE, folder / SUBFOLDER / RECORD_FILE):
        if path.is_file():
            return path
    raise InputError(f"{folder}: no detector: there is no {RECORD_FILE} in it or in {folder / SUBFOLDER}")


def _scorer(given: FeatureSet | MapInput, tensors: dict[str, Tensor], source: Path) -> Scorer:
    if isinstance(given, FeatureSet):
        count = (len(given.features),)
        mean, scale, weight = (_array(tensors, part, count, source) for part in ("mean", "scale", "weight"))
        offset = float(_array(tensors, "offset", (1,), source)[0])
        return BandScorer(input=given, mean=mean, scale=scale, weight=weight, offset=offset)
    network = ResNet50(in_channels=given.num_channels)
    state = {key.removeprefix("network."): tensor for key, tensor in tensors.items() if key.startswith("network.")}
    load_into(network, state, source)
    return MapScorer(input=given, network=network.eval())


def _array(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], source: Path) -> np.ndarray:
    if name not in tensors or tensors[name].shape != shape:
        given = "is missing" if name not in tensors else f"has shape {tuple(tensors[name].shape)}"
        raise CheckpointError(f"{source}: {name} {given}; shape {shape} is needed")
    require_finite({name: tensors[name]}, source)
    return tensors[name].double().numpy()
