"""The store of maps: what is written is what is read, under names that never collide."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from golden_values import rnd
from rediffuse.dire.maps import MapStore
from rediffuse.dire.reconstruct import Reconstruction
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import ConfigError, InputError, SettingsMismatch, StorageError
from rediffuse.images.encode import PNG16_STEP

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


def test_image_to_look_at_is_rounded_down_as_the_original_does(tmp_path: Path) -> None:
    MapStore(tmp_path, SETTINGS).write("a.png", reconstruction())
    pixels = np.asarray(Image.open(tmp_path / "maps_8bit" / "a.png.png")).astype(float)
    exact = reconstruction().map.values[0].movedim(0, -1).numpy() * 127.5
    assert (pixels <= exact + 1e-3).all()
    assert (pixels > exact - 1 - 1e-3).all()


def test_other_settings_in_one_folder_are_refused_by_name(tmp_path: Path) -> None:
    MapStore(tmp_path, SETTINGS).write("a.png", reconstruction())
    with pytest.raises(SettingsMismatch, match=r"steps=10 \(there 20\), depth=5 \(there None\)"):
        MapStore(tmp_path, replace(SETTINGS, steps=10, depth=5))


def test_settings_are_recorded_beside_the_maps(tmp_path: Path) -> None:
    MapStore(tmp_path, SETTINGS).write("a.png", reconstruction())
    assert json.loads((tmp_path / "settings.json").read_text())["model_sha256"] == "0" * 64
    assert MapStore.open(tmp_path).settings == SETTINGS


@pytest.mark.parametrize("content", ["", "[]", '{"image_size": 16}', '{"image_size": "wide", "model_sha256": ""}'])
def test_damaged_settings_name_their_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ConfigError, match=r"settings\.json"):
        MapStore.open(tmp_path)


def test_folder_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        MapStore.open(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".safetensors"])
def test_missing_or_damaged_map_names_its_file(tmp_path: Path, suffix: str) -> None:
    store = MapStore(tmp_path, SETTINGS)
    with pytest.raises(InputError, match=r"a\.jpg\.png: there is no map of a\.jpg"):
        store.read("a.jpg")
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / f"a.jpg{suffix}").write_bytes(b"cut short")
    with pytest.raises(InputError, match=f"a.jpg{suffix}: cannot be read"):
        store.read("a.jpg")


def test_names_too_long_for_a_file_system_stay_apart(tmp_path: Path) -> None:
    store = MapStore(tmp_path, SETTINGS)
    names = ["ä" * 126 + f"{digit}.jpg" for digit in "12"]
    for name in names:
        store.write(name, reconstruction(name))
    for name in names:
        assert torch.allclose(store.read(name).values, reconstruction(name).map.values, atol=PNG16_STEP)


def test_folder_that_is_a_file_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        MapStore(tmp_path / "out", SETTINGS).write("a.png", reconstruction())
