import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from detection.conftest import SETTINGS
from detection.tiny import LEFT_OUT, thresholds
from rediffuse.detection.calibration import fit_calibration
from rediffuse.detection.detector import (
    BETWEEN,
    UNFAMILIAR,
    Detector,
    load_control,
    load_detector,
    save_with_control,
)
from rediffuse.detection.familiarity import fit_familiarity
from rediffuse.detection.features import FEATURES, INPUTS, MapInput, feature_set
from rediffuse.detection.left_out import LeftOut
from rediffuse.detection.metrics import roc_auc
from rediffuse.detection.resnet import ResNet50
from rediffuse.detection.scorers import MapScorer, Scorer
from rediffuse.dire.bands import band_maps
from rediffuse.errors import CheckpointError, ConfigError, InputError, SettingsMismatch
from rediffuse.images.windows import Window
from rediffuse.training.detector_search import fit_bands
from rediffuse.zoo.precision import choose_precision

LABELS = torch.arange(200) % 2
FEW = torch.arange(4) % 2
WINDOWS = dataclasses.replace(SETTINGS, crop="windows:4")


def detector_of(scorer: Scorer, make) -> Detector:
    training = make(LABELS)
    features, labels = FEATURES[scorer.input.familiar].measure(training), LABELS.numpy()
    familiarity = fit_familiarity(features, labels)
    return Detector(
        scorer=scorer,
        familiarity=dataclasses.replace(familiarity, limit=float(familiarity.distances(features).max())),
        settings=training.settings,
        calibration=fit_calibration(labels, scorer.logits(training)),
        thresholds=thresholds(0.4, 0.6),
        left_out=LEFT_OUT,
        training={"by": "a test"},
    )


@pytest.fixture(scope="module")
def bands(make) -> Detector:
    features = FEATURES["bands"].measure(make(LABELS))
    return detector_of(fit_bands(FEATURES["bands"], features, LABELS.numpy(), 1.0), make)


@pytest.mark.parametrize(
    ("field", "line"),
    [
        (("calibration", "slope"), "slope=nan: a finite number is needed"),
        (("thresholds", "real"), "real=nan is above"),
        (("familiarity_limit",), "familiarity_limit=nan: at least 0 is needed"),
    ],
)
def test_a_number_of_the_record_that_is_nan_is_refused(
    bands: Detector, tmp_path: Path, field: tuple[str, ...], line: str
) -> None:
    bands.save(tmp_path)
    record = json.loads((tmp_path / "detector.json").read_text())
    inner = record if len(field) == 1 else record[field[0]]
    inner[field[-1]] = float("nan")
    (tmp_path / "detector.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=rf"detector\.json: .*{line}"):
        load_detector(tmp_path)


def test_weights_that_are_nan_are_refused(bands: Detector, tmp_path: Path) -> None:
    bands.save(tmp_path)
    tensors = load_file(tmp_path / "detector.safetensors")
    save_file({**tensors, "weight": tensors["weight"] * float("nan")}, tmp_path / "detector.safetensors")
    with pytest.raises(CheckpointError, match=r"detector\.safetensors: (\d+) of \1 values are NaN or infinite: weight"):
        load_detector(tmp_path)


@pytest.fixture(scope="module")
def maps(make) -> Detector:
    given = INPUTS["map_bands"]
    assert isinstance(given, MapInput)
    torch.manual_seed(0)
    return detector_of(MapScorer(input=given, network=ResNet50(in_channels=12).eval()), make)


def test_bands_tell_images_apart_that_lose_different_frequencies(bands, make):
    assert roc_auc(LABELS.numpy(), bands.probabilities(make(LABELS, seed=1))) > 0.95


def test_the_bands_that_differ_are_the_ones_that_speak(bands, make):
    strongest = np.abs(bands.explain(make(LABELS, seed=1))).mean(axis=0).argmax()
    assert strongest >= 5  # see `make`


def test_contributions_of_bands_and_offset_add_up_to_the_logit(bands, make):
    reconstruction = make(FEW)
    total = bands.scorer.contributions(reconstruction).sum(axis=1) + bands.scorer.offset
    np.testing.assert_allclose(total, bands.scorer.logits(reconstruction), rtol=1e-12)


def test_what_bands_add_and_the_offsets_are_the_calibrated_logit(bands, make):
    reconstruction = make(FEW)
    offset = bands.calibration.slope * bands.scorer.offset + bands.calibration.offset
    logits = bands.explain(reconstruction).sum(axis=1) + offset
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), bands.probabilities(reconstruction), rtol=1e-9)


@pytest.fixture(scope="module")
def by_windows(make) -> Detector:
    """Each training image is 4 windows of its class."""
    images = [make(torch.full((4,), label % 2), seed=label, settings=WINDOWS) for label in range(40)]
    features = feature_set("bands", WINDOWS)
    inputs, labels = np.concatenate([features.measure(image) for image in images]), np.arange(40) % 2
    familiarity = fit_familiarity(inputs, labels)
    scorer = fit_bands(features, inputs, labels, 1.0)
    return Detector(
        scorer=scorer,
        familiarity=dataclasses.replace(familiarity, limit=float(familiarity.distances(inputs).max())),
        settings=WINDOWS,
        calibration=fit_calibration(labels, scorer.logits_of(inputs)),
        thresholds=thresholds(0.4, 0.6),
        left_out=LEFT_OUT,
        training={},
    )


def test_windows_are_judged_together(by_windows, make):
    probabilities = [by_windows.probabilities(make(torch.full((4,), k), seed=99, settings=WINDOWS)) for k in (0, 1)]
    assert [one.shape for one in probabilities] == [(1,), (1,)]
    assert probabilities[0] < 0.2 < 0.8 < probabilities[1]
    image = make(FEW, settings=WINDOWS)
    assert by_windows.explain(image).shape == (1, 8)
    assert by_windows.distances(image).shape == (1,)


def test_a_window_contributes_what_the_logit_loses_without_it(by_windows, make):
    image = make(torch.tensor([0, 0, 0, 1]), seed=7, settings=WINDOWS)
    slope, logit = by_windows.calibration.slope, by_windows.scorer.logits
    without_last = slope * (logit(image) - logit(image[:3]))[0]
    contributions = by_windows.explain_windows(image)
    np.testing.assert_allclose(contributions[3], without_last, rtol=1e-5)
    assert contributions.argmax() == 3
    np.testing.assert_array_equal(by_windows.explain_windows(image[:1]), slope * logit(image[:1]))


def test_a_detector_of_whole_images_has_no_windows_to_explain(bands, make):
    assert len(bands.explain_windows(make(FEW))) == 0


def test_an_image_with_fewer_windows_than_the_training_images_is_unsure(by_windows, make, tmp_path: Path):
    few = dataclasses.replace(by_windows.familiarity, fewest_windows=2)
    dataclasses.replace(by_windows, familiarity=few).save(tmp_path)
    image = make(torch.full((4,), 1), seed=3, settings=WINDOWS)
    image = dataclasses.replace(image, windows=tuple(Window(top=0, left=32 * k, size=32) for k in range(4)))
    loaded = load_detector(tmp_path)
    assert [np.isposinf(loaded.distances(image[:count]))[0] for count in (1, 2)] == [True, False]
    assert loaded.judge(image[:1])[1:] == ("unsure", UNFAMILIAR)
    assert np.isfinite(by_windows.distances(image[:1]))


def test_a_detector_of_windows_is_loaded_as_it_was_saved(by_windows, make, tmp_path: Path):
    by_windows.save(tmp_path)
    loaded = load_detector(tmp_path)
    image = make(FEW, settings=WINDOWS)
    assert loaded.settings == WINDOWS
    written = b"".join((tmp_path / name).read_bytes() for name in ("detector.json", "detector.safetensors"))
    assert (loaded.sha256, by_windows.sha256) == (hashlib.sha256(written).hexdigest(), None)
    np.testing.assert_array_equal(loaded.probabilities(image), by_windows.probabilities(image))
    np.testing.assert_array_equal(loaded.distances(image), by_windows.distances(image))
    with pytest.raises(SettingsMismatch, match=r"crop=center \(there windows:4\)"):
        loaded.probabilities(make(FEW))


def test_a_feature_of_the_whole_image_belongs_to_no_band(make):
    features = FEATURES["bands_mean"].measure(make(LABELS))
    scorer = fit_bands(FEATURES["bands_mean"], features, LABELS.numpy(), 1.0)
    mean_error = scorer.weight[16] * (features[:, 16] - scorer.mean[16]) / scorer.scale[16]
    total = scorer.contributions(make(LABELS)).sum(axis=1) + mean_error + scorer.offset
    np.testing.assert_allclose(total, scorer.logits(make(LABELS)), rtol=1e-9)


def test_a_map_detector_says_what_its_logit_loses_without_a_band(maps, make):
    reconstruction = make(FEW)
    parts = band_maps(reconstruction.error)
    explained = maps.explain(reconstruction)
    assert explained.shape == (4, 8)
    passes = []
    hook = maps.scorer.network.register_forward_hook(lambda *_: passes.append(1))
    maps.explain(reconstruction)
    hook.remove()
    assert len(passes) == 1  # all bands of all images in one batch
    for band in (0, 7):
        without = dataclasses.replace(reconstruction, x_0_hat=reconstruction.x_0_hat + parts[:, band])
        lost = maps.scorer.logits(reconstruction) - maps.scorer.logits(without)
        np.testing.assert_allclose(explained[:, band], maps.calibration.slope * lost, atol=1e-3)


def test_probability_does_not_depend_on_the_batch(bands, make):
    reconstruction = make(LABELS)
    alone = np.concatenate([bands.probabilities(reconstruction[k : k + 1]) for k in range(5)])
    np.testing.assert_allclose(bands.probabilities(reconstruction)[:5], alone, rtol=1e-4)


@pytest.mark.parametrize("name", ["bands", "maps"])
def test_saved_and_loaded_it_says_the_same(name, make, tmp_path: Path, request):
    detector: Detector = request.getfixturevalue(name)
    detector.save(tmp_path)
    loaded = load_detector(tmp_path)
    assert loaded.kind == detector.kind == {"bands": "bands", "maps": "map"}[name]
    reconstruction = make(FEW, seed=2)
    np.testing.assert_array_equal(loaded.probabilities(reconstruction), detector.probabilities(reconstruction))
    np.testing.assert_array_equal(loaded.distances(reconstruction), detector.distances(reconstruction))
    for field in ("settings", "calibration", "thresholds", "training"):
        assert getattr(loaded, field) == getattr(detector, field)


@pytest.mark.parametrize("method", ["probabilities", "distances", "explain"])
def test_other_settings_are_refused_with_both_values(bands, make, method):
    other = dataclasses.replace(bands.settings, steps=10, grid="aligned")
    message = r"^the detector has other settings: steps=10 \(there 20\), grid=aligned \(there compat\)"
    with pytest.raises(SettingsMismatch, match=message):
        getattr(bands, method)(dataclasses.replace(make(FEW), settings=other))


def test_between_the_thresholds_it_is_unsure(bands):
    decisions = [bands.decide(probability, distance=0) for probability in (0.39, 0.4, 0.59, 0.6)]
    assert decisions == [("real", None), ("unsure", BETWEEN), ("unsure", BETWEEN), ("generated", None)]


def test_an_image_at_the_limit_is_familiar_and_one_beyond_it_is_not(bands):
    limit = bands.familiarity.limit
    assert bands.decide(0.9, limit) == ("generated", None)
    assert bands.decide(0.9, np.nextafter(limit, np.inf)) == ("unsure", UNFAMILIAR)


def test_an_image_unlike_the_training_images_is_unsure_whatever_its_probability(bands, make):
    reconstruction = make(LABELS, seed=1)
    flat = dataclasses.replace(reconstruction, x_0=torch.zeros_like(reconstruction.x_0))
    assert (bands.distances(reconstruction) > bands.familiarity.limit).mean() < 0.05
    for probability, distance in zip(bands.probabilities(flat), bands.distances(flat), strict=True):
        assert bands.decide(probability, distance) == ("unsure", UNFAMILIAR)


def test_its_repr_says_input_and_settings_without_weights(bands):
    assert repr(bands).startswith("Detector(input='bands', thresholds=Thresholds(real=")
    assert "array" not in repr(bands)


def test_a_folder_without_a_detector_is_refused(tmp_path: Path):
    message = rf"^{tmp_path}: no detector: there is no detector\.json in it or in {tmp_path}/detector$"
    with pytest.raises(InputError, match=message):
        load_detector(tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"feature_names": ["mean"]}, CheckpointError, "train the detector again"),
        ({"input": "bnads"}, ConfigError, "input"),
        ({"input": "bands_mean"}, CheckpointError, "mean has shape"),
        ({"input": "map"}, CheckpointError, "missing"),
        (
            {"thresholds": {"real": 0.9, "generated": 0.1, "max_false_alarms": 0.05, "max_misses": 0.05}},
            ConfigError,
            "thresholds",
        ),
    ],
)
def test_a_record_that_does_not_fit_is_refused_with_its_file(bands, tmp_path: Path, change, error, message):
    bands.save(tmp_path)
    path = tmp_path / "detector.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=rf"detector\.(json|safetensors): .*{message}"):
        load_detector(tmp_path)


def test_a_control_is_written_and_loaded_with_its_detector_or_is_none(bands, maps, make, tmp_path: Path):
    for control in (maps, None):  # the second replaces the first
        save_with_control(tmp_path / "run" / "detector", bands, control)
        reconstruction = make(FEW)
        same = load_detector(tmp_path / "run")
        np.testing.assert_array_equal(same.probabilities(reconstruction), bands.probabilities(reconstruction))
        loaded = load_control(tmp_path / "run")
        assert (loaded and loaded.scorer.input) == (control and control.scorer.input)
    assert sorted(path.name for path in (tmp_path / "run" / "detector").iterdir()) == [
        "detector.json",
        "detector.safetensors",
    ]


def test_what_is_no_detector_is_not_replaced_by_one(bands, tmp_path: Path):
    (tmp_path / "photos.zip").write_text("")
    with pytest.raises(
        InputError, match=f"^{tmp_path}: holds photos.zip, which is no part of a detector; give another"
    ):
        save_with_control(tmp_path, bands, None)
    with pytest.raises(InputError, match=f"^{tmp_path}/photos.zip: is a file; a folder is needed$"):
        save_with_control(tmp_path / "photos.zip", bands, None)


def test_only_precisions_that_were_shown_to_be_equal_are_accepted(bands, make, tmp_path: Path):
    made = make(FEW)
    in_half = dataclasses.replace(made, settings=dataclasses.replace(made.settings, precision="bf16"))
    with pytest.raises(SettingsMismatch, match=r"precision=bf16 \(there fp32\)"):
        bands.probabilities(in_half)
    dataclasses.replace(bands, equal_precisions=("bf16",)).save(tmp_path)
    accepting = load_detector(tmp_path)
    assert accepting.probabilities(in_half) == pytest.approx(bands.probabilities(made))
    assert accepting.settings_on(torch.device("cpu"), "bf16").precision == "bf16"
    with pytest.raises(ConfigError, match=r"^precision=fp16: was not shown .*; auto, fp32, bf16 are allowed$"):
        accepting.settings_on(torch.device("cpu"), "fp16")


def test_another_limit_moves_its_threshold_and_keeps_the_other_limit(bands):
    scores = {"a": tuple(np.linspace(0, 1, 50))}
    left_out = LeftOut(real=scores, generated=scores)
    usual = dataclasses.replace(bands, left_out=left_out, thresholds=left_out.thresholds(0.1, 0.2))
    assert usual.with_limits() == usual
    for given in ({"max_false_alarms": 0.3}, {"max_misses": 0.4}, {"max_false_alarms": 0.3, "max_misses": 0.4}):
        other = usual.with_limits(**given)
        limits = {"max_false_alarms": 0.1, "max_misses": 0.2} | given
        assert other == dataclasses.replace(usual, thresholds=left_out.thresholds(**limits))


def test_a_network_is_loaded_on_a_device_and_moved_in_place(bands, maps, tmp_path: Path):
    save_with_control(tmp_path, bands, maps)
    control = load_control(tmp_path)
    assert control is not None
    assert control.to("meta") is control
    there = load_control(tmp_path, device="meta")
    assert there is not None
    assert {one.scorer.network.fc.weight.device.type for one in (control, there)} == {"meta"}


def test_a_detector_with_a_network_has_no_windows_to_explain(maps, make):
    assert maps.explain_windows(make(FEW)).tolist() == []


def test_a_limit_of_the_distance_may_be_nothing_and_not_less(bands, tmp_path: Path):
    dataclasses.replace(bands, familiarity=dataclasses.replace(bands.familiarity, limit=0.0)).save(tmp_path)
    assert load_detector(tmp_path).familiarity.limit == 0
    below = dataclasses.replace(bands, familiarity=dataclasses.replace(bands.familiarity, limit=-0.5))
    with pytest.raises(ConfigError, match=r"^familiarity_limit=-0\.5: at least 0 is needed$"):
        below.save(tmp_path)


def test_a_record_without_left_out_scores_is_refused_with_the_command_that_makes_a_new_one(bands, tmp_path: Path):
    bands.save(tmp_path)
    record = json.loads((tmp_path / "detector.json").read_text())
    del record["left_out"]
    (tmp_path / "detector.json").write_text(json.dumps(record))
    message = (
        rf"^{tmp_path}/detector\.json: made by a version that kept no left-out scores; "
        "`rediffuse train detector --data DATA --out RUN` makes a new one$"
    )
    with pytest.raises(CheckpointError, match=message):
        load_detector(tmp_path)


@pytest.mark.parametrize("name", ["mean", "scale", "weight", "offset", "familiarity.centres", "familiarity.precision"])
def test_a_tensor_that_is_missing_infinite_or_of_another_shape_is_named(bands, tmp_path: Path, name: str):
    bands.save(tmp_path)
    weights = tmp_path / "detector.safetensors"
    tensors = load_file(weights)
    shape = tuple(tensors[name].shape)
    wrong = {
        f"{name} is missing; shape {shape} is needed": {key: value for key, value in tensors.items() if key != name},
        f"{name} has shape {(*shape, 1)}; shape {shape} is needed": tensors | {name: tensors[name][..., None]},
        f"1 of {tensors[name].numel()} values are NaN or infinite: {name}": tensors | {name: tensors[name].clone()},
    }
    wrong[list(wrong)[-1]][name].view(-1)[0] = float("inf")
    for message, written in wrong.items():
        save_file(written, weights)
        with pytest.raises(CheckpointError, match=f"^{re.escape(f'{weights}: {message}')}"):
            load_detector(tmp_path)


def test_by_default_a_detector_uses_its_own_precision_unless_a_faster_one_is_equal(bands):
    cpu = torch.device("cpu")
    assert bands.settings_on(cpu) == bands.settings
    accepting = dataclasses.replace(bands, equal_precisions=("bf16",))
    assert accepting.settings_on(cpu).precision == choose_precision("auto", cpu)
