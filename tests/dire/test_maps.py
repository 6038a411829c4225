"""The store of maps: maps are read as they were written, and names are unique."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from golden_values import rnd
from rediffuse.dire.maps import MapStore, stored_precision
from rediffuse.dire.reconstruct import Reconstruction
from rediffuse.dire.settings import DireSettings, MapFormat
from rediffuse.errors import ConfigError, InputError, SettingsMismatch, StorageError
from rediffuse.images.encode import PNG16_STEP
from rediffuse.images.tensors import to_uint8_floor

SETTINGS = DireSettings(image_size=16, model_sha256="0" * 64)
KINDS = ("maps", "reconstructions", "latents")


def reconstruction(name: str = "x") -> Reconstruction:
    x_0, x_T, x_0_hat = (rnd(f"{name}.{part}", 1, 3, 16, 16) for part in ("x_0", "x_T", "x_0_hat"))
    return Reconstruction(x_0=x_0.clamp(-1, 1), x_T=x_T, x_0_hat=x_0_hat.clamp(-1, 1), settings=SETTINGS)


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_map_in_16_bits_returns_to_half_a_step(tmp_path: Path) -> None:
    given = reconstruction()
    MapStore(tmp_path, SETTINGS).write("photo.jpg", given)
    read = MapStore.open(tmp_path).read("photo.jpg")
    assert read.settings == SETTINGS
    assert (read.values - given.map.values).abs().max() <= PNG16_STEP / 2 + 1e-7


def test_map_in_safetensors_returns_exactly(tmp_path: Path) -> None:
    given = reconstruction()
    MapStore(tmp_path, SETTINGS, map_format="safetensors").write("photo.jpg", given)
    assert torch.equal(MapStore.open(tmp_path).read("photo.jpg").values, given.map.values)


@pytest.mark.parametrize("map_format", ["png16", "safetensors"])
def test_windows_of_one_image_lie_below_one_another_and_return_in_order(map_format: MapFormat, tmp_path: Path) -> None:
    settings = replace(SETTINGS, crop="windows:3")
    x_0, x_T, x_0_hat = (rnd(part, 3, 3, 16, 16) for part in ("x_0", "x_T", "x_0_hat"))
    given = Reconstruction(x_0=x_0.clamp(-1, 1), x_T=x_T, x_0_hat=x_0_hat.clamp(-1, 1), settings=settings)
    store = MapStore(tmp_path, settings, kinds=KINDS, map_format=map_format)
    store.write("a.jpg", given)
    read = MapStore.open(tmp_path).read("a.jpg")
    assert read.settings == settings
    assert read.values.shape == (3, 3, 16, 16)
    assert (read.values - given.map.values).abs().max() <= PNG16_STEP / 2 + 1e-7
    with Image.open(tmp_path / "reconstructions" / "a.jpg.png") as image:
        assert np.array_equal(np.asarray(image), np.concatenate(to_uint8_floor(given.x_0_hat)))
    latents = safetensors.torch.load_file(tmp_path / "latents" / "a.jpg.safetensors")["x_T"]
    assert torch.equal(latents, torch.cat(list(x_T), dim=1))


def test_map_that_does_not_consist_of_windows_is_refused_by_name(tmp_path: Path) -> None:
    settings = replace(SETTINGS, crop="windows:3")
    store = MapStore(tmp_path, settings)
    (tmp_path / "maps").mkdir()
    for height, width in ((24, 16), (32, 8)):
        safetensors.torch.save_file({"map": torch.zeros(3, height, width)}, tmp_path / "maps" / "a.jpg.safetensors")
        with pytest.raises(InputError, match=r"a\.jpg\.safetensors: cannot be read: DireMap: values are"):
            store.read("a.jpg")


def test_map_format_ignores_input_suffix(tmp_path: Path) -> None:
    store = MapStore(tmp_path, SETTINGS)
    for name in ("photo.jpg", "photo.png", "sub/photo.webp"):
        store.write(name, reconstruction(name))
        for folder in ("maps", "maps_8bit"):
            with Image.open(tmp_path / folder / f"{name}.png") as image:
                assert image.format == "PNG"
        assert torch.allclose(store.read(name).values, reconstruction(name).map.values, atol=PNG16_STEP)


def test_every_kind_has_its_file(tmp_path: Path) -> None:
    store = MapStore(tmp_path, SETTINGS, kinds=KINDS)
    assert not store.holds("sub/a.jpg")
    store.write("sub/a.jpg", reconstruction())
    assert store.holds("sub/a.jpg")
    assert files_below(tmp_path) == [
        "latents/sub/a.jpg.safetensors",
        "maps/sub/a.jpg.png",
        "maps_8bit/sub/a.jpg.png",
        "reconstructions/sub/a.jpg.png",
        "settings.json",
    ]
    store.remove("sub/a.jpg")
    assert files_below(tmp_path) == ["settings.json"]


def test_maps_of_both_formats_are_removed_and_the_exact_one_is_read(tmp_path: Path) -> None:
    exact, other = reconstruction("exact"), reconstruction("other")
    MapStore(tmp_path, SETTINGS, map_format="safetensors").write("a.jpg", exact)
    store = MapStore(tmp_path, SETTINGS)
    store.write("a.jpg", other)
    assert torch.equal(store.read("a.jpg").values, exact.map.values)
    store.remove("a.jpg")
    assert files_below(tmp_path) == ["settings.json"]


def test_what_is_not_the_map_returns_as_it_is_shown_and_exactly(tmp_path: Path) -> None:
    given = reconstruction()
    MapStore(tmp_path, SETTINGS, kinds=KINDS).write("a.png", given)
    with Image.open(tmp_path / "reconstructions" / "a.png.png") as image:
        assert np.array_equal(np.asarray(image), to_uint8_floor(given.x_0_hat[0]))
    latent = safetensors.torch.load_file(tmp_path / "latents" / "a.png.safetensors")["x_T"]
    assert torch.equal(latent, given.x_T[0])


def test_image_to_look_at_is_rounded_down_as_the_original_does(tmp_path: Path) -> None:
    MapStore(tmp_path, SETTINGS).write("a.png", reconstruction())
    pixels = np.asarray(Image.open(tmp_path / "maps_8bit" / "a.png.png")).astype(float)
    exact = reconstruction().map.values[0].movedim(0, -1).numpy() * 127.5
    assert (pixels <= exact + 1e-3).all()
    assert (pixels > exact - 1 - 1e-3).all()


def test_other_settings_in_one_folder_are_refused_by_name(tmp_path: Path) -> None:
    MapStore(tmp_path, SETTINGS).write("a.png", reconstruction())
    line = rf"^{tmp_path} has other settings: steps=10 \(there 20\), depth=5 \(there None\)$"
    with pytest.raises(SettingsMismatch, match=line):
        MapStore(tmp_path, replace(SETTINGS, steps=10, depth=5))


def test_of_processes_that_begin_at_once_the_first_one_decides_the_settings(tmp_path: Path) -> None:
    one, same, other = (MapStore(tmp_path, replace(SETTINGS, steps=steps)) for steps in (20, 20, 10))
    one.prepare(True)
    same.prepare(False)
    assert (tmp_path / "settings.json").read_text().count("\n") > 10  # to be read by people too
    with pytest.raises(SettingsMismatch, match=rf"^{tmp_path} has other settings: steps=10 \(there 20\)$"):
        other.prepare(False)
    assert MapStore.open(tmp_path).settings == SETTINGS


@pytest.mark.parametrize("name", ["maps/a.png.png", "maps_8bit/a.png.png"])
@pytest.mark.parametrize("size", [0, 30])
def test_a_map_that_was_emptied_or_cut_off_is_not_held(tmp_path: Path, name: str, size: int) -> None:
    store = MapStore(tmp_path, SETTINGS)
    store.write("a.png", reconstruction())
    assert store.holds("a.png")
    os.truncate(tmp_path / name, size)
    assert not store.holds("a.png")


def test_settings_are_recorded_beside_the_maps(tmp_path: Path) -> None:
    MapStore(tmp_path, SETTINGS).write("a.png", reconstruction())
    assert json.loads((tmp_path / "settings.json").read_text())["model_sha256"] == "0" * 64
    assert MapStore.open(tmp_path).settings == SETTINGS


def test_the_precision_of_a_folder_is_that_of_its_results(tmp_path: Path) -> None:
    assert stored_precision(tmp_path) is None
    given = replace(reconstruction(), settings=replace(SETTINGS, precision="bf16"))
    MapStore(tmp_path, given.settings).write("a.jpg", given)
    assert stored_precision(tmp_path) == "bf16"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "cannot be read as JSON: Expecting value"),
        ("[]", r"holds \[\]; a JSON object is needed$"),
        ('{"image_size": 16}', ".*model_sha256"),
        ('{"image_size": "wide", "model_sha256": ""}', ".*image_size"),
    ],
)
def test_damaged_settings_name_their_file(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ConfigError, match=rf"settings\.json: {reason}"):
        MapStore.open(tmp_path)


def test_folder_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"settings\.json: does not exist; a folder of results of `rediffuse dire`"):
        MapStore.open(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".safetensors"])
def test_missing_or_damaged_map_names_its_file(tmp_path: Path, suffix: str) -> None:
    store = MapStore(tmp_path, SETTINGS)
    with pytest.raises(InputError, match=r"a\.jpg\.png: there is no map of a\.jpg"):
        store.read("a.jpg")
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / f"a.jpg{suffix}").write_bytes(b"cut short")
    with pytest.raises(InputError, match=rf"a\.jpg{suffix}: cannot be read: \w"):
        store.read("a.jpg")


def test_names_too_long_for_a_file_system_stay_apart(tmp_path: Path) -> None:
    store = MapStore(tmp_path, SETTINGS)
    names = ["ä" * 126 + f"{digit}.jpg" for digit in "12"]
    for name in names:
        store.write(name, reconstruction(name))
    for name in names:
        assert torch.allclose(store.read(name).values, reconstruction(name).map.values, atol=PNG16_STEP)


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        ("a" * 200, "a" * 200),
        ("a" * 201, "a" * 180 + "~HASH"),
        ("a" + "ä" * 100, "a" + "ä" * 89 + "~HASH"),  # the 180th byte is half a letter
    ],
)
def test_part_of_a_name_keeps_200_bytes_or_is_cut_to_180_and_its_hash(tmp_path: Path, part: str, kept: str) -> None:
    MapStore(tmp_path, SETTINGS).write(f"{part}/a.png", reconstruction())
    [folder] = (tmp_path / "maps").iterdir()
    assert folder.name == kept.replace("HASH", hashlib.sha256(part.encode()).hexdigest()[:16])


@pytest.mark.parametrize("name", ["../a.png", "sub/../../a.png", "/a.png"])
def test_name_that_leads_out_of_the_folder_is_never_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(AssertionError, match="leads out of the folder"):
        MapStore(tmp_path / "out", SETTINGS).write(name, reconstruction())
    assert files_below(tmp_path) in ([], ["out/settings.json"])


def test_one_image_of_the_same_settings_is_written_at_a_time(tmp_path: Path) -> None:
    one = reconstruction()
    two = replace(one, **{part: getattr(one, part).repeat(2, 1, 1, 1) for part in ("x_0", "x_T", "x_0_hat")})
    for wrong in (two, replace(one, settings=replace(SETTINGS, steps=10))):
        with pytest.raises(AssertionError):
            MapStore(tmp_path, SETTINGS).write("a.png", wrong)
    assert not files_below(tmp_path)


def test_folder_that_is_a_file_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        MapStore(tmp_path / "out", SETTINGS).write("a.png", reconstruction())
