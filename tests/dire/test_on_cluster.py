"""What a worker of a cluster does with its files; tests/cli/test_engine.py has the cluster."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rediffuse.cluster import LEFT_OUT, Pool
from rediffuse.dire.folder import fill
from rediffuse.dire.job import reconstruct_files
from rediffuse.dire.manifest import Manifest
from rediffuse.dire.maps import MapStore
from rediffuse.dire.on_cluster import _Reconstruct, chunk_size
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import CheckpointError
from rediffuse.images.find import FoundImage, find_images
from rediffuse.zoo.model import DiffusionModel, load

SETTINGS = DireSettings(image_size=16, model_sha256="0" * 64)


@pytest.mark.parametrize(
    ("num_left", "batches"),
    [(5, 1), (40, 2), (100, 4), (10_000, 4)],
)
def test_a_chunk_is_a_few_batches_and_every_worker_gets_two_if_there_are_enough(num_left: int, batches: int) -> None:
    pool = Pool(num_workers=2, num_gpus=0)
    assert chunk_size(SETTINGS, pool, batch_size=4, num_files=10_000, num_left=num_left) == 4 * batches


@pytest.mark.parametrize(
    ("num_windows", "images_per_file", "num_files", "files_per_batch"),
    [(2, 1, 9, 3), (3, 1, 10, 2), (4, 2, 50, 1), (16, 1, 50, 1)],
)
def test_windows_and_changed_copies_count_in_the_batches_of_a_chunk(
    num_windows: int, images_per_file: int, num_files: int, files_per_batch: int
) -> None:
    settings, pool = replace(SETTINGS, crop=f"windows:{num_windows}"), Pool(num_workers=1, num_gpus=0)
    left, images = 2 * files_per_batch, images_per_file
    size = chunk_size(settings, pool, batch_size=8, num_files=num_files, num_left=left, images_per_file=images)
    assert size == files_per_batch


@pytest.fixture
def saved(class_model: DiffusionModel, tmp_path: Path) -> Path:
    class_model.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_worker_writes_what_a_local_job_writes(saved: Path, pictures: Path, tmp_path: Path) -> None:
    model = load(saved, device="cpu")
    settings = DireSettings.for_model(model, steps=2)
    found = [replace(image, label=0) for image in find_images([pictures])]
    options = {"batch_size": 4, "workers": 1, "num_files": len(found)}
    with Manifest(tmp_path / "local") as manifest:
        results = reconstruct_files(model, found, settings, **options)
        rows = list(fill(results, MapStore(tmp_path / "local", settings), manifest))
    store = MapStore(tmp_path / "cluster", settings)
    work = _Reconstruct(saved, "cpu", store, options)
    assert list(work([(image, None) for image in found])) == rows
    for row in rows:
        assert store.holds(row.name) == (row.status == "done")

    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(pictures / "wide.bmp")
    (pictures / "photo.jpg").write_bytes(b"")
    previous = {row.name: row for row in rows}
    wide, photo = (FoundImage(pictures / name, name, label=0) for name in ("wide.bmp", "photo.jpg"))
    again = list(work([(image, previous[image.name]) for image in (wide, photo)]))
    assert [row.status for row in again] == ["done", "failed"]
    assert not store.holds("photo.jpg")


def test_a_file_with_which_two_workers_ended_has_the_reason_and_no_results(saved: Path, tmp_path: Path) -> None:
    settings = DireSettings.for_model(load(saved, device="cpu"), steps=2)
    store = MapStore(tmp_path / "out", settings)
    work = _Reconstruct(saved, "cpu", store, {"batch_size": 1, "workers": 1, "num_files": 1})
    image = tmp_path / "a.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(image)
    found = FoundImage(image, "a.png", label=0)
    [done] = work([(found, None)])
    assert store.holds("a.png")
    row = work.left_out((found, done))
    assert (row.name, row.status, row.reason) == ("a.png", "failed", f"{image}: {LEFT_OUT}")
    assert not store.holds("a.png")


def test_a_worker_with_another_model_of_the_same_name_is_an_error(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"^{saved}: a worker of the cluster has another model of this name$"):
        _Reconstruct(saved, "cpu", MapStore(tmp_path, replace(SETTINGS, model_sha256="f" * 64)), {})
