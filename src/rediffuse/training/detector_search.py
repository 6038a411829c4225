"""The search for a detector: candidates are fitted with images left out, and compared by these images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from rediffuse.detection.assemble import LeftOutResults, assemble
from rediffuse.detection.config import InputName
from rediffuse.detection.detector import Detector
from rediffuse.detection.evaluate import Evaluation, Judged, JudgedImages, Outcome, evaluate
from rediffuse.detection.familiarity import feature_scale, fit_familiarity
from rediffuse.detection.features import INPUTS, FeatureSet, MapInput, detector_input
from rediffuse.detection.metrics import mean_auc
from rediffuse.detection.resnet import load_resnet50
from rediffuse.detection.scorers import BandScorer, MapScorer, Scorer
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import RediffuseError
from rediffuse.progress import Progress, unobserved
from rediffuse.records import digest, dump
from rediffuse.training.detector_config import DetectorTraining
from rediffuse.training.leave_out import Fit, Plan, left_out, left_out_distances, plan_of_folds
from rediffuse.training.loop import train
from rediffuse.training.map_task import WEIGHTS_NAME, MapTask
from rediffuse.training.samples import Samples

BESIDE_DATA = ("originals", "changed")
"""The fields of `DetectorTraining` with images that are never fitted; their names begin with that of the field."""


def kind_of(name: str) -> int:
    """The kind of an image: 0 of `originals`, 1 of `data`, 2 of `changed`."""
    first = name.partition("/")[0]
    return 2 * BESIDE_DATA.index(first) if first in BESIDE_DATA else 1


class TrainingStopped(RediffuseError):
    """A signal ended the training; the same command continues it."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The data of classifiers at one depth."""

    settings: DireSettings
    network_calls: int
    """Per image, all its windows together."""
    samples: Samples


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One classifier of the search."""

    input: InputName
    depth: int | None
    network_calls: int
    """Network calls per image, all its windows together."""
    inverse_penalty: float | None
    """The C of the logistic regression; None for a ResNet-50."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A candidate, and its AUC on the images that its fits leave out: the mean over pairs of collections."""

    candidate: Candidate
    left_out_auc: float


class Search:
    """Fits candidates, and makes detectors of the best ones."""

    def __init__(
        self, config: DetectorTraining, measured: Sequence[Measured], runs: Path, progress: Progress = unobserved
    ) -> None:
        self.config, self.measured, self.runs, self.progress = config, measured, runs, progress
        self.images = measured[0].samples.images
        self.labels = measured[0].samples.labels
        self._collections = np.array([image.collection for image in self.images])
        self._kinds = np.array([kind_of(image.found.name) for image in self.images])
        self._scorers: dict[tuple[Candidate, bytes], Scorer] = {}

    def plan(self, folds: np.ndarray, without: int = -1) -> Plan:
        """Fits that leave out one fold each, of all folds but one (-1: of all); only `data` is fitted."""
        return plan_of_folds(self.images, folds, folds != without, self._kinds == 1)

    def detectors(self, plan: Plan) -> tuple[Detector, Detector, list[Choice]]:
        """The best detector and its control, and all candidates of both with their figures."""
        choices = self._choices(
            [
                (measured, name)
                for measured in self.measured
                for name in self.config.features
                if INPUTS[name].needs_second_view == measured.settings.second_view
            ],
            plan,
        )
        best, measured = _best(choices)
        of_control = self._choices([(measured, INPUTS[best.candidate.input].control)], plan)
        detectors = [self._detector(choice, measured, plan) for choice in (best, _best(of_control)[0])]
        return detectors[0], detectors[1], [choice for choice, _ in (*choices, *of_control)]

    def cross_validated(self, folds: np.ndarray) -> Evaluation:
        """The report on every image, each judged by detectors that were made without its fold."""
        samples = self.measured[0].samples
        judged, names = [], ("", "")
        for rows, detector, control in self.without_each(folds):
            names = (detector.scorer.input.name, control.scorer.input.name)
            images = (self.images[row] for row in np.flatnonzero(rows))
            codecs = (samples.codecs[row] for row in np.flatnonzero(rows))
            outcomes = (self.outcomes(one, rows) for one in (detector, control))
            judged += map(Judged, images, codecs, *outcomes)
        return evaluate(
            JudgedImages(input=names[0], control_input=names[1], images=tuple(judged), skipped=samples.skipped)
        )

    def outcomes(self, detector: Detector, rows: np.ndarray) -> list[Outcome]:
        """A detector's results for these images."""
        samples = next(one for one in self.measured if one.settings == detector.settings).samples
        inputs = samples.inputs
        given = detector.scorer.input
        probabilities = detector.calibration.probabilities(detector.scorer.logits_of(inputs[given.name][rows]))
        distances = detector.familiarity.distances(inputs[given.familiar][rows], samples.num_windows[rows])
        return [
            Outcome(probability, *detector.decide(probability, distance))
            for probability, distance in zip(probabilities.tolist(), distances.tolist(), strict=True)
        ]

    def without_each(self, folds: np.ndarray) -> Iterator[tuple[np.ndarray, Detector, Detector]]:
        """For each fold its images (a mask), and the detector and control that are made without them."""
        for fold in range(folds.max() + 1):
            yield folds == fold, *self.detectors(self.plan(folds, without=fold))[:2]

    def _choices(self, inputs: Sequence[tuple[Measured, InputName]], plan: Plan) -> list[tuple[Choice, Measured]]:
        choices = []
        for measured, name in inputs:
            is_map = isinstance(INPUTS[name], MapInput)
            for inverse_penalty in (None,) if is_map else self.config.inverse_penalties:
                candidate = Candidate(
                    input=name,
                    depth=measured.settings.depth,
                    network_calls=measured.network_calls,
                    inverse_penalty=inverse_penalty,
                )
                logits = self._left_out_logits(candidate, measured, plan.fits_to_choose)
                rows = left_out(plan.fits_to_choose)
                auc = mean_auc(self.labels[rows], logits[rows], self._collections[rows])
                choices.append((Choice(candidate=candidate, left_out_auc=auc), measured))
        return choices

    def _left_out_logits(self, candidate: Candidate, measured: Measured, fits: Sequence[Fit]) -> np.ndarray:
        """(N,): the logit of every image by the fit that leaves it out; NaN for the others."""
        logits = np.full(len(self.labels), np.nan)
        for fit, left in fits:
            inputs = measured.samples.inputs[candidate.input][left]
            logits[left] = self._fit(candidate, measured, fit, left).logits_of(inputs)
        return logits

    def _fit(self, candidate: Candidate, measured: Measured, rows: np.ndarray, left: np.ndarray) -> Scorer:
        key = (candidate, rows.tobytes())
        if key not in self._scorers:
            given, inputs = detector_input(candidate.input, measured.settings), measured.samples.inputs[candidate.input]
            if isinstance(given, MapInput):
                self._scorers[key] = self._train_map(given, measured, rows, left)
            else:
                assert candidate.inverse_penalty is not None
                self._scorers[key] = fit_bands(given, inputs[rows], self.labels[rows], candidate.inverse_penalty)
        return self._scorers[key]

    def _train_map(self, given: MapInput, measured: Measured, rows: np.ndarray, left: np.ndarray) -> MapScorer:
        run = self.runs / f"{given.name}-{digest(measured.settings)}"
        train_maps, left_out_maps = (
            (measured.samples.inputs[given.name][part], self.labels[part]) for part in (rows, left)
        )
        task = MapTask(given, train_maps, left_out_maps, self.config.resnet.seed, self.config.resnet_weights)
        outcome = train(task, self.config.resnet, run, progress=self.progress)
        if outcome.stopped_by is not None:
            raise TrainingStopped(f"{run}: stopped at step {outcome.step}; the same command continues")
        network = load_resnet50(run / "model" / WEIGHTS_NAME, given.num_channels)
        return MapScorer(input=given, network=network)

    def _detector(self, choice: Choice, measured: Measured, plan: Plan) -> Detector:
        """The final fit of a candidate; calibration and thresholds from the images that the other fits leave out.

        The limits hold for originals, for the images of `data`, and for those of `changed`, each alone.
        """
        rows, candidate = left_out(plan.fits), choice.candidate
        familiar = measured.samples.inputs[INPUTS[candidate.input].familiar]
        return assemble(
            self._fit(candidate, measured, plan.rows, rows),
            replace(
                fit_familiarity(familiar[plan.rows], self.labels[plan.rows]),
                fewest_windows=int(measured.samples.num_windows[plan.rows].min()),
            ),
            measured.settings,
            LeftOutResults(
                images=[self.images[row] for row in np.flatnonzero(rows)],
                logits=self._left_out_logits(candidate, measured, plan.fits)[rows],
                distances=left_out_distances(familiar, self.labels, plan.fits)[rows],
                kinds=self._kinds[rows],
            ),
            self.config.limits,
            {
                **dump(candidate),
                "left_out_auc": choice.left_out_auc,
                "images": measured.samples.counts,
                "num_skipped": len(measured.samples.skipped),
            },
        )


def _best(choices: Sequence[tuple[Choice, Measured]]) -> tuple[Choice, Measured]:
    """The candidate with the largest AUC; of equal ones the first."""
    return max(choices, key=lambda pair: pair[0].left_out_auc)


def fit_bands(feature_set: FeatureSet, features: np.ndarray, labels: np.ndarray, inverse_penalty: float) -> BandScorer:
    """Logistic regression on standardised features (N, F), with equal weight for both classes.

    Args:
        inverse_penalty: C, the factor of the loss relative to the penalty |weights|^2 / 2.
    """
    mean, scale = features.mean(axis=0), feature_scale(features)
    regression = LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=10_000)
    regression.fit((features - mean) / scale, labels)
    offset = float(np.ravel(regression.intercept_)[0])
    return BandScorer(input=feature_set, mean=mean, scale=scale, weight=regression.coef_[0], offset=offset)
