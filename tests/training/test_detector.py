import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from golden_values import fill
from rediffuse.detection.config import Limits
from rediffuse.detection.detector import UNFAMILIAR, load_control, load_detector
from rediffuse.detection.evaluate import evaluate, evaluation_table, judge_labelled
from rediffuse.detection.features import INPUTS, detector_input
from rediffuse.detection.judge import judge
from rediffuse.detection.labelled import find_labelled
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.dire.folder import fill as fill_folder
from rediffuse.dire.job import reconstruct_files
from rediffuse.dire.manifest import Manifest
from rediffuse.dire.maps import MapStore
from rediffuse.dire.settings import DireSettings, StoreForm
from rediffuse.errors import ConfigError, InputError, SettingsMismatch
from rediffuse.images.find import find_images
from rediffuse.models.config import UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.training.config import LoopConfig
from rediffuse.training.detector import train_detector
from rediffuse.training.detector_config import DetectorTraining
from rediffuse.training.map_task import MapData
from rediffuse.training.reconstructions import ReconstructionCache, StoredMaps
from rediffuse.training.samples import measure
from rediffuse.zoo.model import DiffusionModel, Provenance

SPLITS = {"train": 24, "validation": 12, "test": 12}
SIZE = 8
SAMPLERS = ("ddim", "ddpm")


def tiny_model(sha256: str = "0" * 64) -> DiffusionModel:
    config = UNetConfig(image_size=SIZE, model_channels=32, num_res_blocks=1, channel_mult=(1, 1))
    return DiffusionModel(
        network=fill(UNetModel(config)),
        process_config=ProcessConfig(schedule="cosine", variance="fixed_large"),
        provenance=Provenance(source="test", sha256=sha256),
    )


def picture(rng: np.random.Generator, is_generated: bool) -> Image.Image:
    """A smooth blob of colours with more or less noise."""
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(
        (SIZE, SIZE), Image.Resampling.BICUBIC
    )
    grain = rng.normal(size=(SIZE, SIZE, 3)) * (15 if is_generated else 3)
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return tiny_model()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in SPLITS.items():
        for number in range(count):
            for place in ("real", f"generated/{SAMPLERS[number % 2]}"):
                path = folder / split / place / f"{number:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture(rng, place != "real").save(path)
    (folder / "test" / "real" / "broken.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, model: DiffusionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train_detector(DetectorTraining(data=data, steps=4, depths=(1, 2), features=("bands", "bands_mean")), model, folder)
    return folder


def test_report_has_detector_and_control_for_every_sampler(trained: Path):
    report = json.loads((trained / "report.json").read_text())
    comparisons = report["evaluation"]["comparisons"]
    assert [comparison["source"] for comparison in comparisons] == ["all", *SAMPLERS]
    for comparison in comparisons:
        auc = comparison["detector"]["figures"]["auc"]
        assert auc["low"] <= auc["value"] <= auc["high"]
        assert comparison["control"]["figures"]["num_generated"] == comparison["detector"]["figures"]["num_generated"]
    assert comparisons[0]["control"]["figures"]["auc"]["value"] > 0.8  # the noise is in the image itself
    assert report["evaluation"]["control_input"] == "image"


def test_the_conclusion_of_the_audit_is_logged_and_reported(
    data: Path, model: DiffusionModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO", logger="rediffuse"):
        train_detector(DetectorTraining(data=data, steps=4, depths=(1,)), model, tmp_path)
    line = json.loads((tmp_path / "report.json").read_text())["audit"]
    assert line.startswith("these data can")
    assert line in caplog.messages
    assert "1 of 97 files cannot be read" in line


def test_unreadable_file_is_left_out_by_name(trained: Path):
    (skipped,) = json.loads((trained / "report.json").read_text())["evaluation"]["skipped"]
    assert "real/broken.png: " in skipped


def test_best_candidate_on_validation_is_taken(trained: Path):
    report = json.loads((trained / "report.json").read_text())
    tried = [candidate for candidate in report["candidates"] if candidate["input"] != "image"]
    assert {(candidate["depth"], candidate["input"]) for candidate in tried} == {
        (depth, name) for depth in (1, 2) for name in ("bands", "bands_mean")
    }
    best = max(tried, key=lambda candidate: candidate["left_out_auc"])
    assert {name: report["detector"][name] for name in best} == best
    assert load_detector(trained / "detector").settings.depth == report["detector"]["depth"]


def test_saved_detector_has_the_reported_figures(trained: Path, data: Path, model: DiffusionModel):
    detector, control = load_detector(trained), load_control(trained)
    again = evaluate(judge_labelled(model, find_labelled(data / "test"), detector, control, batch_size=5))
    reported = json.loads((trained / "report.json").read_text())["evaluation"]["comparisons"]
    for one, other in zip(again.comparisons, reported, strict=True):
        assert one.detector.figures.auc.value == pytest.approx(other["detector"]["figures"]["auc"]["value"], abs=0.01)


def test_second_call_reconstructs_nothing_again(trained: Path, data: Path, tmp_path: Path):
    shutil.copytree(trained / "reconstructions", tmp_path / "reconstructions")
    other = tiny_model()
    for parameter in other.network.parameters():
        torch.nn.init.zeros_(parameter)  # would give other reconstructions
    train_detector(
        DetectorTraining(data=data, steps=4, depths=(1, 2), features=("bands", "bands_mean")), other, tmp_path
    )
    assert (tmp_path / "report.json").read_bytes() == (trained / "report.json").read_bytes()


def test_file_format_of_a_class_moves_no_score(data: Path, model: DiffusionModel, tmp_path: Path):
    settings = DireSettings.for_model(model, steps=4, depth=2, second_view=True)
    cache = ReconstructionCache(folder=tmp_path / "cache", model=model, batch_size=8, workers=1)
    swapped = tmp_path / "swapped"
    shutil.copytree(data / "validation", swapped)
    for number, path in enumerate(sorted((swapped / "generated").rglob("*.png"))):
        codec, suffix = (("BMP", ".bmp"), ("TIFF", ".tif"), ("WEBP", ".webp"))[number % 3]
        content = io.BytesIO()
        Image.open(path).save(content, codec, **({"lossless": True} if codec == "WEBP" else {}))
        path.with_suffix(suffix).write_bytes(content.getvalue())
        path.unlink()
    measures = {name: INPUTS[name].measure for name in INPUTS if name != "lpips"}  # needs weights that are not here
    before, after = (
        measure(images, cache.reconstruct([image.found for image in images], settings), measures)
        for images in (find_labelled(data / "validation"), find_labelled(swapped))
    )
    for name in measures:
        np.testing.assert_allclose(after.inputs[name], before.inputs[name], rtol=1e-4, atol=1e-4)


def test_verdicts_come_for_every_file_in_order(trained: Path, data: Path, model: DiffusionModel):
    files = find_images([data / "test" / "real"])
    verdicts = list(judge(model, files, load_detector(trained / "detector"), batch_size=4, evidence=True))
    assert [verdict.file for verdict in verdicts] == [file.name for file in files]
    judged = [verdict for verdict in verdicts if verdict.judged]
    assert [verdict.file for verdict in verdicts if not verdict.judged] == ["broken.png"]
    for verdict in judged:
        assert verdict.evidence is not None
        assert verdict.evidence.x_0.shape == (1, 3, SIZE, SIZE)
        assert len(verdict.bands) == len(verdict.coherences) == len(verdict.contributions) == 8
        assert (verdict.reason is None) == (verdict.decision != "unsure")


def test_another_model_is_refused_before_any_work(trained: Path):
    with pytest.raises(SettingsMismatch, match="model_sha256=1111"):
        judge(tiny_model(sha256="1" * 64), [], load_detector(trained / "detector"))


def test_missing_folder_is_named(tmp_path: Path, model: DiffusionModel):
    (tmp_path / "train" / "real").mkdir(parents=True)
    with pytest.raises(InputError, match=r"train"):
        train_detector(DetectorTraining(data=tmp_path), model, tmp_path / "out")


@pytest.mark.parametrize(
    "wrong",
    [{"features": ()}, {"inverse_penalties": (0.0,)}, {"crop": "windows:2", "features": ("map",)}],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DetectorTraining(data=Path(), **wrong)


def test_map_batches_are_balanced_and_a_function_of_the_position():
    maps, labels = np.arange(12, dtype=np.float32)[:, None, None, None], np.array([0] * 9 + [1] * 3)
    data = MapData(maps, labels, seed=0)
    whole, parts = data[range(36)], [data[range(start, start + 6)] for start in range(0, 36, 6)]
    assert torch.equal(whole["map"], torch.cat([part["map"] for part in parts]))
    assert whole["label"].mean() == 0.5
    assert sorted(whole["map"][whole["label"] == 0].flatten()[:9].tolist()) == list(range(9))


def test_map_detector_is_trained_saved_and_reported(data: Path, model: DiffusionModel, tmp_path: Path):
    loop = LoopConfig(num_steps=1, batch_size=4, ema_rates=(), device="cpu")
    config = DetectorTraining(data=data, steps=4, depths=(1,), features=("map",), resnet=loop)
    evaluation = train_detector(config, model, tmp_path)
    assert (evaluation.input, evaluation.control_input) == ("map", "pixels")
    assert load_detector(tmp_path / "detector").kind == "map"
    shutil.rmtree(tmp_path)  # two ResNet-50s with the state of their optimisers


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with room for several windows."""
    folder, rng = tmp_path_factory.mktemp("large"), np.random.default_rng(1)
    for split in SPLITS:
        for place in ("real", "generated"):
            (folder / split / place).mkdir(parents=True)
            for number in range(10):
                parts = [[np.asarray(picture(rng, place != "real")) for _ in range(3)] for _ in range(3)]
                pixels = np.concatenate([np.concatenate(row, axis=1) for row in parts])
                Image.fromarray(pixels).save(folder / split / place / f"{number}.png")
    picture(rng, is_generated=False).save(folder / "test" / "real" / "window.png")
    return folder


def test_windows_are_trained_on_cached_judged_and_counted(large: Path, model: DiffusionModel, tmp_path: Path):
    config = DetectorTraining(data=large, steps=4, depths=(1,), crop="windows:3", batch_size=7)
    train_detector(config, model, tmp_path)
    detector = load_detector(tmp_path)
    assert detector.settings.crop == "windows:3"
    report = (tmp_path / "report.json").read_text()
    assert {candidate["network_calls"] for candidate in json.loads(report)["candidates"]} == {3 * 2}
    assert json.loads(report)["evaluation"]["comparisons"][0]["detector"]["figures"]["num_real"] == 11

    files = find_images([large / "test"])
    each, together = (list(judge(model, files, detector, batch_size=size, evidence=True)) for size in (1, 16))
    for one, other in zip(each, together, strict=True):
        assert one.windows == other.windows
        assert len(one.windows) == len(one.window_contributions) == (1 if "window" in one.file else 3)
        np.testing.assert_allclose(one.probability, other.probability, atol=1e-4)
        assert one.evidence is not None
        assert one.evidence.x_0.shape == (len(one.windows), 3, SIZE, SIZE)
    assert detector.familiarity.fewest_windows == 3
    assert {(one.decision, one.reason) for one in each if "window" in one.file} == {("unsure", UNFAMILIAR)}

    other = tiny_model()
    for parameter in other.network.parameters():
        torch.nn.init.zeros_(parameter)  # would give other reconstructions
    train_detector(config, other, tmp_path)
    assert (tmp_path / "report.json").read_text() == report


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data` with five groups of each class, and `originals` and `changed` with gray images of the same groups."""
    folder, rng = tmp_path_factory.mktemp("grouped"), np.random.default_rng(2)
    for group in range(5):
        for label, place in enumerate((f"real/photos/sender{group}", f"generated/model{group}")):
            for kind in ("data", "originals", "changed"):
                (folder / kind / place).mkdir(parents=True)
                for number in range(6 if kind == "data" else 2):
                    image = picture(rng, bool(label)) if kind == "data" else Image.new("RGB", (SIZE, SIZE), "gray")
                    image.save(folder / kind / place / f"{number}.png")
    return folder


def test_whole_groups_are_left_out_of_the_fits_that_give_thresholds_and_figures(
    grouped: Path, model: DiffusionModel, tmp_path: Path
):
    config = DetectorTraining(data=grouped / "data", steps=4, depths=(1,), features=("bands", "bands_mean"))
    evaluation = train_detector(config, model, tmp_path)
    figures = evaluation.comparisons[0].detector.figures
    assert (figures.num_real, figures.num_generated) == (
        30,
        30,
    )  # every image is judged, by detectors without its group
    assert [comparison.source for comparison in evaluation.comparisons[1:]] == [f"model{k}" for k in range(5)]
    assert [(one.label, one.group) for one in evaluation.groups][:1] == [("real", "photos")]
    detector = load_detector(tmp_path)
    assert {name: len(scores) for name, scores in detector.left_out.real.items()} == {
        f"photos/sender{k}": 6 for k in range(5)
    }
    assert set(detector.left_out.generated) == {f"model{k}" for k in range(5)}
    assert detector.thresholds.max_false_alarms == 0.05  # 30 images: 1 / 31 would be possible
    assert (tmp_path / "report.txt").read_text() == evaluation_table(evaluation) + "\n"


def test_limits_that_hold_for_the_same_groups_only_or_not_at_all_are_warned_of(
    grouped: Path, model: DiffusionModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    config = DetectorTraining(data=grouped / "data", steps=4, depths=(1,), limits=Limits(max_misses=0.01))
    with caplog.at_level("WARNING", logger="rediffuse"):
        train_detector(config, model, tmp_path)
    assert [message for message in caplog.messages if message.startswith("max_")] == [
        "max_false_alarms=0.05 holds for the groups of the training only: there are 5 groups of real images, and 19 "
        "are needed for a limit on unseen groups",
        "max_misses=0.01 holds for the groups of the training only: there are 5 groups of generated images, and 19 "
        "are needed for a limit on unseen groups",
        "max_misses=0.01: there are too few generated images for this limit; 0.0323 is used",
    ]
    assert load_detector(tmp_path).thresholds.max_misses == pytest.approx(1 / 31)


def test_originals_and_changed_copies_give_thresholds_and_count_for_the_figures_but_are_never_fitted(
    grouped: Path, model: DiffusionModel, tmp_path: Path
):
    plain = DetectorTraining(data=grouped / "data", steps=4, depths=(1,), inverse_penalties=(0.1,))
    train_detector(plain, model, tmp_path / "without")
    beside = replace(plain, originals=grouped / "originals", changed=grouped / "changed")
    evaluation = train_detector(beside, model, tmp_path / "with")
    assert evaluation.comparisons[0].detector.figures.num_real == 50
    weights = [load_file(tmp_path / name / "detector" / "detector.safetensors") for name in ("without", "with")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    without, left_out = (load_detector(tmp_path / name).left_out for name in ("without", "with"))
    assert without.copies is None
    assert [{len(scores) for scores in part.real.values()} for part in left_out.parts] == [{2}, {6}, {2}]


@pytest.mark.parametrize("field", ["features", "originals", "changed"])
def test_what_needs_splits_or_groups_says_so(data: Path, grouped: Path, model: DiffusionModel, tmp_path: Path, field):
    config = {
        "features": DetectorTraining(data=grouped / "data", features=("map",)),
        "originals": DetectorTraining(data=data, originals=grouped / "originals"),
        "changed": DetectorTraining(data=data, changed=grouped / "changed"),
    }[field]
    with pytest.raises(ConfigError, match=f"^{field}=.*folders train, validation, test"):
        train_detector(config, model, tmp_path)


def test_cached_windows_that_this_version_would_not_choose_are_refused(
    large: Path, model: DiffusionModel, tmp_path: Path
):
    settings = DireSettings.for_model(model, steps=4, depth=1, crop="windows:3")
    cache = ReconstructionCache(folder=tmp_path, model=model, batch_size=8, workers=1)
    [found] = find_images([large / "test" / "real" / "0.png"])
    list(cache.reconstruct([found], settings))
    [path] = tmp_path.rglob("*.safetensors")
    tensors = load_file(path)
    tensors["windows"] += 8
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"safetensors: holds other windows of the image than this version chooses"):
        list(cache.reconstruct([found], settings))


def test_two_views_are_looked_at_where_the_features_need_them(data: Path, model: DiffusionModel, tmp_path: Path):
    config = DetectorTraining(data=data, steps=4, depths=(2,), features=("views",), grid="aligned", frequency="freeu")
    train_detector(config, model, tmp_path)
    detector = load_detector(tmp_path / "detector")
    assert detector.settings.second_view
    assert detector.settings.frequency == "freeu"
    [verdict] = judge(model, find_images([data / "test" / "real" / "00.png"]), detector)
    assert verdict.judged


def test_only_features_that_need_a_second_view_pay_for_it(data: Path, model: DiffusionModel, tmp_path: Path):
    config = DetectorTraining(data=data, steps=4, depths=(1,), features=("bands", "views"))
    train_detector(config, model, tmp_path)
    candidates = json.loads((tmp_path / "report.json").read_text())["candidates"]
    calls = {candidate["input"]: candidate["network_calls"] for candidate in candidates}
    assert calls["views"] == 2 * calls["bands"] == 4
    kept = [set(load_file(next(folder.rglob("*.safetensors")))) for folder in (tmp_path / "reconstructions").iterdir()]
    assert sorted(map(sorted, kept)) == [["second", "x_0_hat", "x_T"], ["x_0_hat", "x_T"]]


def test_a_file_that_is_replaced_while_it_is_reconstructed_is_stored_by_what_was_read(
    tmp_path: Path, model: DiffusionModel
) -> None:
    first, second = tmp_path / "images" / "first.png", tmp_path / "images" / "second.png"
    first.parent.mkdir()
    rng = np.random.default_rng(0)
    early, late, other = (picture(rng, is_generated=True) for _ in range(3))
    early.save(first)
    other.save(second)
    settings = DireSettings.for_model(model, steps=4, depth=1)

    def cache(name: str) -> ReconstructionCache:
        return ReconstructionCache(folder=tmp_path / name, model=model, batch_size=1, workers=1)

    list(cache("cache").reconstruct(find_images([second]), settings))
    results = cache("cache").reconstruct(find_images([first, second]), settings)
    assert next(results).found.path == second  # the other one is missing in the cache by its present content
    late.save(first)
    list(results)
    for content in (early, late):
        content.save(first)
        [stored], [fresh] = (list(cache(name).reconstruct(find_images([first]), settings)) for name in ("cache", "new"))
        assert stored.reconstruction is not None
        assert fresh.reconstruction is not None
        assert torch.equal(stored.reconstruction.x_0_hat, fresh.reconstruction.x_0_hat)


@pytest.mark.parametrize("form", ["files", "shards"])
def test_maps_of_a_folder_give_the_detector_of_reconstructions(
    data: Path, model: DiffusionModel, tmp_path: Path, form: StoreForm
) -> None:
    settings = DireSettings.for_model(model, steps=4, depth=2)
    found, maps = find_images([data]), tmp_path / "maps"
    store = MapStore(maps, settings, form=form)
    with Manifest(maps) as manifest:
        list(fill_folder(reconstruct_files(model, found, settings, batch_size=32), store, manifest))
    config = DetectorTraining(data=data, steps=4, depths=(2,), features=("map_energies",))
    other = tiny_model()
    for parameter in other.network.parameters():
        torch.nn.init.zeros_(parameter)  # would give other reconstructions
    train_detector(config, model, tmp_path / "computed")
    train_detector(replace(config, maps=maps), other, tmp_path / "read")
    computed, read = (load_file(tmp_path / name / "detector" / "detector.safetensors") for name in ("computed", "read"))
    for name, tensor in computed.items():
        torch.testing.assert_close(read[name], tensor, rtol=1e-2, atol=1e-2)
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("computed", "read")]
    assert reports[0]["evaluation"]["skipped"] == reports[1]["evaluation"]["skipped"]
    assert not (tmp_path / "read" / "reconstructions").exists()
    stored = StoredMaps(folder=maps, model=other, workers=1).reconstruct(found[-4:], settings)
    for result, expected in zip(stored, reconstruct_files(model, found[-4:], settings, batch_size=32), strict=True):
        pair = [one.reconstruction for one in (result, expected) if one.reconstruction is not None]
        np.testing.assert_allclose(*map(INPUTS["map"].measure, pair), atol=1e-4)
        levels = [INPUTS["map_8bit"].measure(one) for one in pair]
        assert (np.abs(levels[0] - levels[1]) > 1e-4).mean() < 0.05  # where 16 bits round across a level

    with pytest.raises(SettingsMismatch, match=r"maps has other settings: depth=1 \(there 2\)"):
        train_detector(replace(config, maps=maps, depths=(1,)), model, tmp_path / "other")
    shutil.copytree(data, tmp_path / "data")
    picture(np.random.default_rng(9), is_generated=True).save(tmp_path / "data" / "train" / "real" / "new.png")
    with pytest.raises(InputError, match=r"new\.png: .*maps has no map of this content under the name train/real/new"):
        train_detector(replace(config, data=tmp_path / "data", maps=maps), model, tmp_path / "other")


def test_stored_maps_of_windows_are_measured(large: Path, model: DiffusionModel, tmp_path: Path) -> None:
    settings = DireSettings.for_model(model, steps=4, depth=1, crop="windows:3")
    found = find_images([large / "test"])
    with Manifest(tmp_path) as manifest:
        store = MapStore(tmp_path, settings, form="shards")
        list(fill_folder(reconstruct_files(model, found, settings, batch_size=32), store, manifest))
    feature_set = detector_input("map_energies", settings)
    stored = StoredMaps(folder=tmp_path, model=model, workers=1).reconstruct(found, settings)
    for result, expected in zip(stored, reconstruct_files(model, found, settings, batch_size=32), strict=True):
        assert result.reconstruction is not None
        assert expected.reconstruction is not None
        assert result.reconstruction.windows == expected.reconstruction.windows
        measured = (feature_set.measure(one) for one in (result.reconstruction, expected.reconstruction))
        np.testing.assert_allclose(*measured, atol=1e-2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "features=bands: cannot be computed from maps; map, map_8bit, map_energies are allowed with maps"),
        ({"features": ("map",), "changed": Path("c")}, "changed=c: is not allowed with maps"),
        ({"features": ("map",), "depths": (1, 2)}, r"depths=\(1, 2\): one is allowed with maps"),
    ],
)
def test_what_maps_do_not_have_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DetectorTraining(data=Path("d"), maps=Path("m"), **fields)
