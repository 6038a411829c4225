"""A folder of results: finished files are skipped, changed files are done again, failures are reported."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rediffuse.dire.folder import fill, keep, unfinished
from rediffuse.dire.job import FileResult, reconstruct_files
from rediffuse.dire.labels import with_classes
from rediffuse.dire.manifest import Manifest, Row, read
from rediffuse.dire.maps import MapStore
from rediffuse.dire.reconstruct import Reconstruction
from rediffuse.dire.settings import DireSettings, StoreForm
from rediffuse.errors import InputError, StorageError
from rediffuse.images.find import FoundImage, find_images
from rediffuse.images.windows import Window
from rediffuse.records import digest
from rediffuse.zoo.model import DiffusionModel


def fill_folder(
    pictures: Path, out: Path, model: DiffusionModel, kinds=("maps",), labels=None, form: StoreForm = "files"
) -> list[Row]:
    """Process the unfinished files and return their rows."""
    settings = DireSettings.for_model(model, steps=2)
    store = MapStore(out, settings, kinds=kinds, form=form)
    with Manifest(out) as manifest:
        files = list(with_classes(find_images([pictures]), model.num_classes, labels))
        todo = unfinished(files, store, manifest)
        results = reconstruct_files(model, todo, settings, batch_size=4, num_files=len(files))
        return list(fill(results, store, manifest))


def test_rows_say_what_became_of_every_file(model: DiffusionModel, pictures: Path, tmp_path: Path) -> None:
    rows = {row.name: row for row in fill_folder(pictures, tmp_path / "out", model)}
    assert list(rows) == ["notes.png", "photo.jpg", "photo.png", "sub/a.png", "sub/b.webp", "wide.bmp"]
    assert rows == {row.name: row for row in read(tmp_path / "out")}
    wide, notes = rows["wide.bmp"], rows["notes.png"]
    assert (wide.status, wide.codec, wide.width, wide.height, wide.reason) == ("done", "BMP", 40, 20, None)
    assert (notes.status, notes.codec, notes.width, notes.height, notes.mean_error) == ("failed", *[None] * 4)
    for row in (wide, notes):
        assert row.path == str(pictures / row.name)
        assert row.settings == digest(DireSettings.for_model(model, steps=2))
    assert wide.sha256 == hashlib.sha256((pictures / "wide.bmp").read_bytes()).hexdigest()
    assert notes.sha256 is None
    assert "notes.png" in (notes.reason or "")
    values = MapStore.open(tmp_path / "out").read("wide.bmp").values
    assert wide.mean_error == pytest.approx(values.mean().item(), abs=1e-4)


def test_a_row_has_the_places_of_windows_and_the_mean_distance_in_the_second_layer(tmp_path: Path) -> None:
    settings = DireSettings(image_size=16, model_sha256="0" * 64, crop="windows:2")
    x = torch.zeros(2, 3, 16, 16)
    windows = (Window(top=0, left=16, size=16), Window(top=24, left=8, size=16))
    lpips = torch.tensor([[0.1, 0.2, 0.5, 0.6, 0.7], [0.1, 0.4, 0.5, 0.6, 0.7]])
    made = Reconstruction(x_0=x, x_T=x, x_0_hat=x + 0.25, settings=settings, windows=windows, lpips=lpips)
    result = FileResult(found=FoundImage(Path("a.jpg"), "a.jpg"), reconstruction=made)
    row = keep(result, MapStore(tmp_path, settings), None)
    assert (row.windows, row.lpips, row.mean_error) == ("0,16 24,8", pytest.approx(0.3), 0.25)
    assert row.path == str(Path.cwd() / "a.jpg")


def test_second_time_only_the_failed_file_is_tried(model: DiffusionModel, pictures: Path, tmp_path: Path) -> None:
    fill_folder(pictures, tmp_path / "out", model)
    assert [row.name for row in fill_folder(pictures, tmp_path / "out", model)] == ["notes.png"]


def test_changed_lost_and_mended_files_are_done_again(model: DiffusionModel, pictures: Path, tmp_path: Path) -> None:
    fill_folder(pictures, tmp_path / "out", model)
    for name in ("photo.png", "notes.png"):
        Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(pictures / name)
    (tmp_path / "out" / "maps" / "wide.bmp.png").unlink()
    again = fill_folder(pictures, tmp_path / "out", model)
    assert [(row.name, row.status) for row in again] == [(n, "done") for n in ("notes.png", "photo.png", "wide.bmp")]
    assert fill_folder(pictures, tmp_path / "out", model) == []


def test_file_that_is_gone_since_it_was_found_is_not_done(
    model: DiffusionModel, pictures: Path, tmp_path: Path
) -> None:
    fill_folder(pictures, tmp_path / "out", model)
    found = find_images([pictures])
    (pictures / "photo.jpg").unlink()
    with Manifest(tmp_path / "out") as manifest:
        todo = list(unfinished(found, MapStore.open(tmp_path / "out"), manifest))
    assert [image.name for image in todo] == ["notes.png", "photo.jpg"]


def test_what_a_killed_job_left_goes_when_the_folder_is_filled_again(
    model: DiffusionModel, pictures: Path, tmp_path: Path
) -> None:
    fill_folder(pictures, tmp_path / "out", model)
    partial = tmp_path / "out" / "maps" / ".wide.bmp.png.0c3f81ab.png"
    partial.write_bytes(b"half")
    fill_folder(pictures, tmp_path / "out", model)
    assert partial.exists()  # the previous job was not killed: another program may be writing the file
    (tmp_path / "out" / ".rediffuse.lock").touch()
    fill_folder(pictures, tmp_path / "out", model)
    assert not partial.exists()


def test_map_of_a_file_that_became_unreadable_goes(model: DiffusionModel, pictures: Path, tmp_path: Path) -> None:
    fill_folder(pictures, tmp_path / "out", model)
    (pictures / "photo.png").write_bytes(b"")
    fill_folder(pictures, tmp_path / "out", model)
    assert not (tmp_path / "out" / "maps" / "photo.png.png").exists()
    assert (tmp_path / "out" / "maps" / "photo.jpg.png").exists()


def test_another_kind_of_result_is_made_and_the_maps_stay(
    model: DiffusionModel, pictures: Path, tmp_path: Path
) -> None:
    fill_folder(pictures, tmp_path / "out", model)
    assert len(fill_folder(pictures, tmp_path / "out", model, kinds=("latents",))) == 6
    assert (tmp_path / "out" / "maps" / "sub" / "a.png.png").exists()
    assert (tmp_path / "out" / "latents" / "sub" / "a.png.safetensors").exists()


def test_file_of_another_class_is_done_again(class_model: DiffusionModel, pictures: Path, tmp_path: Path) -> None:
    labels = {found.name: 0 for found in find_images([pictures])}
    fill_folder(pictures, tmp_path / "out", class_model, labels=labels)
    again = fill_folder(pictures, tmp_path / "out", class_model, labels=labels | {"sub/a.png": 1})
    assert [(row.name, row.label) for row in again] == [("notes.png", None), ("sub/a.png", 1)]


def test_result_that_cannot_be_written_stops_the_job(model: DiffusionModel, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "maps").mkdir(parents=True)
    (tmp_path / "out" / "maps" / "sub").write_text("in the way of a folder")
    with pytest.raises(StorageError, match="sub"):
        fill_folder(pictures, tmp_path / "out", model)
    names = {row.name for row in read(tmp_path / "out")}
    assert "sub/a.png" not in names
    assert "photo.jpg" in names


def test_what_is_kept_does_not_depend_on_the_batch(model: DiffusionModel, pictures: Path, tmp_path: Path) -> None:
    settings = DireSettings.for_model(model, steps=2)
    maps = {}
    for batch_size in (1, 5):
        store = MapStore(tmp_path / str(batch_size), settings, map_format="safetensors")
        with Manifest(store.folder) as manifest:
            results = reconstruct_files(model, find_images([pictures]), settings, batch_size=batch_size)
            done = [row.name for row in fill(results, store, manifest) if row.status == "done"]
        maps[batch_size] = torch.cat([store.read(name).values for name in done])
    assert torch.allclose(maps[1], maps[5], rtol=0, atol=1e-4)


def test_results_of_another_file_of_the_same_name_are_not_replaced(
    model: DiffusionModel, pictures: Path, tmp_path: Path
) -> None:
    fill_folder(pictures, tmp_path / "out", model)
    other = Path(shutil.copytree(pictures, tmp_path / "other"))
    assert [row.name for row in fill_folder(other, tmp_path / "out", model)] == ["notes.png"]  # moved, and the same
    Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(other / "photo.png")
    line = f"other/photo.png: {tmp_path / 'out'} holds the results of another file of this name, {pictures}/photo.png"
    line += "; give another folder, or --force to replace them$"
    with pytest.raises(InputError, match=line):
        fill_folder(other, tmp_path / "out", model)


def test_a_job_that_was_interrupted_anywhere_gives_the_same_bytes(
    model: DiffusionModel, pictures: Path, tmp_path: Path
) -> None:
    def maps(out: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (out / "maps").rglob("*.png")}

    settings, found = DireSettings.for_model(model, steps=2), find_images([pictures])
    fill_folder(pictures, tmp_path / "whole", model)
    for cut in range(1, len(found)):
        out = tmp_path / str(cut)
        store = MapStore(out, settings)
        for part in (found[:cut], found):
            with Manifest(out) as manifest:
                todo = unfinished(part, store, manifest)
                results = reconstruct_files(model, todo, settings, batch_size=4, num_files=len(found))
                assert len(list(fill(results, store, manifest)))
        assert maps(out) == maps(tmp_path / "whole")
