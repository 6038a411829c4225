"""The parts for programs with their own training loop: half precision, the log, folders of images, names of files."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import nn
from torch.optim import SGD

from rediffuse.compat.guided_diffusion import fp16_util, image_datasets, logger, train_util
from rediffuse.compat.guided_diffusion.dist_util import load_state_dict
from rediffuse.compat.guided_diffusion.image_datasets import (
    ImageDataset,
    center_crop_arr,
    load_data,
    load_data_for_reverse,
)
from rediffuse.compat.guided_diffusion.unet import UNetModel
from rediffuse.errors import CheckpointError, ConfigError, ImageError, InputError
from rediffuse.training.config import LoopConfig
from rediffuse.training.trainer import TrainingDiverged


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("cat_1.png", "dog_2.png", "cat_3.png"):
        Image.new("RGB", (9, 8), (int(name[4]) * 50, 0, 0)).save(tmp_path / name)
    return tmp_path


# --- half precision -------------------------------------------------------------------------------------------------


def test_half_precision_trains_flat_float32_copies() -> None:
    network = UNetModel(8, 3, 32, 3, 1, [], channel_mult=(1,))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trainer = fp16_util.MixedPrecisionTrainer(model=network, use_fp16=True, initial_lg_loss_scale=4.0)
    assert [tuple(parameter.shape[:-1]) for parameter in trainer.master_params] == [(), (1,)]
    saved = trainer.master_params_to_state_dict(trainer.master_params)
    assert all(torch.equal(saved[name], value) for name, value in before.items())

    optimizer = SGD(trainer.master_params, lr=0.1)
    trainer.backward(network(torch.ones(1, 3, 8, 8), torch.tensor([1])).sum())
    assert trainer.optimize(optimizer)
    assert trainer.lg_loss_scale == pytest.approx(4.001, abs=1e-4)
    assert network.dtype == torch.float16
    moved = trainer.master_params_to_state_dict(trainer.master_params)["out.2.bias"] - before["out.2.bias"]
    torch.testing.assert_close(moved, torch.full((3,), -6.4))  # 64 pixels, lr 0.1: the scale is taken out again


def test_the_copies_come_back_from_their_state_dict() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    groups = fp16_util.get_param_groups_and_shapes(network.named_parameters())
    masters = fp16_util.make_master_params(groups)
    state = fp16_util.master_params_to_state_dict(network, groups, masters, True)
    back = fp16_util.state_dict_to_master_params(network, state, True)
    assert all(torch.equal(a, b) for a, b in zip(masters, back, strict=True))


@pytest.mark.parametrize("use_fp16", [False, True])
def test_a_gradient_that_is_not_finite_changes_no_weight_and_many_end_the_training(
    use_fp16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger.Logger, "CURRENT", logger.Logger(None, []))
    network = nn.Linear(1, 1)
    network.convert_to_fp16 = lambda: None  # type: ignore[assignment]
    trainer = fp16_util.MixedPrecisionTrainer(model=network, use_fp16=use_fp16)
    optimizer, before = SGD(trainer.master_params, lr=1.0), network.weight.item()

    def spoil() -> bool:
        trainer.zero_grad()
        trainer.backward(network(torch.ones(1, 1)).sum() * torch.inf)
        return trainer.optimize(optimizer)

    assert not any(spoil() for _ in range(LoopConfig.max_bad_steps - 1))
    with pytest.raises(TrainingDiverged, match="no finite gradient"):
        spoil()
    assert network.weight.item() == before


# --- the log --------------------------------------------------------------------------------------------------------


def test_means_and_last_values_are_written_to_every_format(tmp_path: Path) -> None:
    with logger.scoped_configure(str(tmp_path), ["log", "csv", "json"]):
        for value in (1.0, 3.0):
            logger.logkv_mean("loss", value)
            logger.logkv("step", value)
        assert logger.dumpkvs() == {"loss": 2.0, "step": 3.0}
        logger.log("a", "message")
        logger.debug("not shown")
    assert "| loss | 2        |" in (tmp_path / "log.txt").read_text()
    assert "a message\n" in (tmp_path / "log.txt").read_text()
    assert "not shown" not in (tmp_path / "log.txt").read_text()
    assert json.loads((tmp_path / "progress.json").read_text()) == {"loss": 2.0, "step": 3.0}


def test_a_program_that_goes_on_adds_to_the_table_columns_too(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with logger.scoped_configure(str(tmp_path), ["csv"]):
            logger.logkv(name, 1)
            logger.dumpkvs()
    with (tmp_path / "progress.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": ""}, {"a": "", "b": "1"}]


def test_a_log_needs_a_folder_that_somebody_named() -> None:
    with pytest.raises(ConfigError, match="OPENAI_LOGDIR"):
        logger.configure()


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stdout, log, json, csv, tensorboard"):
        logger.configure(str(tmp_path), ["cvs"])


# --- folders of images ----------------------------------------------------------------------------------------------


def test_a_class_is_what_stands_before_the_underscore(images: Path) -> None:
    data = load_data(data_dir=str(images), batch_size=3, image_size=8, class_cond=True, deterministic=True)
    x_0, conditioning = next(data)
    assert conditioning["y"].tolist() == [0, 0, 1]  # cat_1, cat_3, dog_2
    assert x_0.shape == (3, 3, 8, 8)
    torch.testing.assert_close(x_0[:, 0, 0, 0], torch.tensor([50, 150, 100]) / 127.5 - 1)


def test_processes_share_the_images_and_crops_repeat_with_the_seed(images: Path) -> None:
    paths = sorted(map(str, images.glob("*.png")))
    assert [len(ImageDataset(8, paths, None, shard, 2)) for shard in (0, 1)] == [2, 1]
    dataset, crops = ImageDataset(4, paths, random_crop=True), []
    for _ in range(2):
        torch.manual_seed(3)
        crops.append(dataset[0][0])
    np.testing.assert_array_equal(*crops)


def test_a_file_that_cannot_be_read_is_replaced_by_the_next_one(images: Path) -> None:
    (images / "dog_2.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"dog_2\.png"):
        ImageDataset(8, [str(images / "dog_2.png")])[0]
    _, labels, paths = next(load_data_for_reverse(data_dir=str(images), batch_size=4, image_size=8, class_cond=True))
    assert [Path(path).name for path in paths] == ["cat_1.png", "cat_3.png", "cat_1.png"]
    assert labels["y"].tolist() == [0, 0, 0]


def test_a_folder_without_a_readable_image_is_an_error(images: Path) -> None:
    for path in images.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="none of the 3 images can be read"):
        next(load_data(data_dir=str(images), batch_size=2, image_size=8))


def test_files_are_found_as_by_the_original(images: Path) -> None:
    (images / ".hidden").mkdir()
    for name in (".hidden/a_1.JPEG", "b_1.webp", "b_2.gif"):
        (images / name).touch()
    (images / "c_1.png").symlink_to("cat_1.png")
    (images / "loop").symlink_to(".")
    (images / "z").symlink_to(".hidden")
    names = [".hidden/a_1.JPEG", "b_2.gif", "c_1.png", "cat_1.png", "cat_3.png", "dog_2.png", "z/a_1.JPEG"]
    assert list(image_datasets._image_files(str(images))) == [str(images / name) for name in names]


def test_pixels_are_read_as_by_the_original(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    colours = [Image.new("RGB", (10, 8), colour) for colour in ("red", "blue")]
    colours[0].save(tmp_path / "animated.gif", save_all=True, append_images=colours[1:])
    for name in ("turned.png", "animated.gif"):
        with Image.open(tmp_path / name) as image:
            expected = center_crop_arr(image, 8)
        array, _ = ImageDataset(8, [str(tmp_path / name)], random_flip=False)[0]
        np.testing.assert_array_equal(np.rint((array + 1) * 127.5).transpose(1, 2, 0), expected)


def test_folders_that_can_give_no_batch_are_refused(images: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch_size=4: .* has 3 images"):
        load_data(data_dir=str(images), batch_size=4, image_size=8)
    (images / "cat_1.png").rename(images / "cat.png")
    with pytest.raises(InputError, match=r"cat\.png: contains no class"):
        load_data(data_dir=str(images), batch_size=1, image_size=8, class_cond=True)


# --- weights ----------------------------------------------------------------------------------------------------------


def test_weights_of_another_network_are_an_error_that_names_their_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--model_path"):
        load_state_dict("")
    one, other = (UNetModel(8, 3, 32, 3, 1, [], channel_mult=multipliers) for multipliers in ((1,), (1, 2)))
    torch.save(one.state_dict(), path := tmp_path / "one.pt")
    with pytest.raises(CheckpointError, match=r"one\.pt: does not fit this UNetModel: \d+ missing: .*"):
        other.load_state_dict(load_state_dict(str(path)))


# --- names of files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "step"), [("a/model000123.pt", 123), ("model1/64x64_diffusion.pt", 0), ("a/model_best.pt", 0)]
)
def test_the_step_stands_in_the_name(name: str, step: int) -> None:
    assert train_util.parse_resume_step_from_filename(name) == step


def test_the_newest_model_in_the_log_folder_is_gone_on_from(tmp_path: Path) -> None:
    with logger.scoped_configure(str(tmp_path), ["log"]):
        assert train_util.find_resume_checkpoint() is None
        for name in ("model000009.pt", "model000010.pt", "model_other.pt", "ema_0.9_000010.pt"):
            (tmp_path / name).touch()
        newest = train_util.find_resume_checkpoint()
    assert newest == str(tmp_path / "model000010.pt")
    assert train_util.find_ema_checkpoint(newest, 10, 0.9) == str(tmp_path / "ema_0.9_000010.pt")
    assert train_util.find_ema_checkpoint(newest, 10, 0.99) is None
