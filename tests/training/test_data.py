"""Images by position: they depend only on the seed and the position."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import write_images

from rediffuse.errors import ImageError, InputError
from rediffuse.files import write_bytes
from rediffuse.images.crop import center_crop
from rediffuse.images.decode import decode
from rediffuse.images.encode import png_bytes
from rediffuse.images.tensors import to_tensor
from rediffuse.training.config import ImageConfig
from rediffuse.training.data import ImageData
from rediffuse.training.listing import list_images

PLAIN = ImageConfig(random_flip=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def test_first_subfolder_is_the_class(folder: Path) -> None:
    listing = list_images(folder)
    assert listing.classes == ("cat", "dog")
    assert [listing.classes[label] for label in listing.labels] == [name.split("/")[0] for name in listing.names]


def test_images_in_no_subfolder_have_no_classes(folder: Path) -> None:
    assert list_images(folder / "cat").classes == ()


def test_labels_file_chooses_files_and_classes(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\ndog/1.png,a\ncat/0.png,b\n")
    listing = list_images(folder, labels)
    assert listing.names == ["cat/0.png", "dog/1.png"]
    assert [listing.classes[label] for label in listing.labels] == ["b", "a"]


def test_labels_of_a_spreadsheet_begin_with_a_byte_order_mark(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"\xef\xbb\xbfpath,label\r\ncat/0.png,a\r\n")
    assert list_images(folder, tmp_path / "labels.csv").classes == ("a",)


def test_classes_that_are_numbers_are_in_the_order_of_numbers(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label\ncat/0.png,10\ndog/1.png,9\n")
    assert list_images(folder, tmp_path / "labels.csv").classes == ("9", "10")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the columns path and label are needed, given nothing"),
        ("file,label\na,b\n", "the columns path and label are needed, given file, label"),
        ("path,label\n", "holds no labels"),
        ("path,label\ncat/0.png,a\nno.png,a\n", r"line 3: 'no.png' is not an image in"),
        ("path,label\ncat/0.png\n", r"line 2: 'cat/0.png' has no label"),
        ("path,label\ncat/0.png,a\ndog/1.png,b\ncat/0.png,b\n", r"line 4: 'cat/0.png' has label 'b', but 'a' before"),
    ],
)
def test_labels_file_of_another_form_is_refused(text: str, message: str, folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(text)
    with pytest.raises(InputError, match=message):
        list_images(folder, labels)


def test_every_epoch_has_every_image_once_in_another_order(folder: Path) -> None:
    data = ImageData(list_images(folder), PLAIN, 8, seed=0)
    epochs = [[data.index_at(position) for position in range(first, first + 10)] for first in (0, 10)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("config", [PLAIN, ImageConfig(), ImageConfig(random_crop=True), ImageConfig(cache_limit_mb=0)])
def test_sample_depends_on_its_position_alone(config: ImageConfig, folder: Path) -> None:
    data = ImageData(list_images(folder), config, 8, seed=3)
    together = data[range(5, 25)]
    one = data[range(17, 18)]
    assert together["x_0"].shape == (20, 3, 8, 8)
    assert torch.equal(one["x_0"][0], together["x_0"][12])
    assert one["y"][0] == together["y"][12]


def test_cache_changes_nothing(folder: Path) -> None:
    listing = list_images(folder)
    cached, read = (ImageData(listing, replace(PLAIN, cache_limit_mb=limit), 8, seed=0) for limit in (1, 0))
    assert torch.equal(cached[range(10)]["x_0"], read[range(10)]["x_0"])


def test_image_is_center_cropped_and_half_of_them_mirrored(folder: Path) -> None:
    listing = list_images(folder).only([0])
    x_0 = to_tensor(center_crop(decode(listing.path(0)).pixels, 8))
    seen = ImageData(listing, ImageConfig(), 8, seed=0)[range(200)]["x_0"]
    is_plain = (seen == x_0).all(dim=(1, 2, 3))
    is_mirrored = (seen == x_0.flip(-1)).all(dim=(1, 2, 3))
    assert (is_plain ^ is_mirrored).all()
    assert 70 < is_mirrored.sum() < 130


@pytest.mark.parametrize("limit", [1, 0])
def test_the_next_file_takes_the_place_of_an_unreadable_one_which_is_reported(
    limit: int, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "cat" / "8.png").write_bytes(b"no image")  # the last cat
    data = ImageData(list_images(folder), replace(PLAIN, cache_limit_mb=limit), 8, seed=0)
    epoch = data[range(10)]
    dog = to_tensor(center_crop(decode(folder / "dog" / "1.png").pixels, 8))
    assert [data.classes[y] for x_0, y in zip(epoch["x_0"], epoch["y"], strict=True) if torch.equal(x_0, dog)] == [
        "dog",
        "dog",
    ]
    [reason] = data.skipped
    assert "8.png" in reason
    assert caplog.messages == ([] if limit else [f"skipped: {reason}"])


def test_files_that_do_not_fit_in_memory_are_read_when_they_are_needed(folder: Path) -> None:
    listing = list_images(folder)
    (folder / "dog" / "9.png").unlink()
    data = ImageData(listing, replace(PLAIN, cache_limit_mb=0), 8, seed=0)
    with pytest.raises(ImageError, match=r"9\.png: cannot be read: No such file"):
        data[range(10)]


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"none of the 1 images can be read; the first: .*broken\.png"):
        ImageData(list_images(tmp_path), PLAIN, 8, seed=0)


def test_fingerprint_tells_names_and_labels_apart(folder: Path) -> None:
    before = list_images(folder)
    write_bytes(folder / "cat" / "new.png", png_bytes(np.zeros((8, 8, 3), np.uint8)))
    assert list_images(folder).fingerprint != before.fingerprint
    assert before.only(range(10)).fingerprint == before.fingerprint


def test_index_gives_the_same_list_without_listing_a_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label\ncat/0.png,10\ndog/1.png,9\n")
    for labels in (None, tmp_path / "labels.csv"):
        index, made = tmp_path / "index.arrow", list_images(folder, labels)
        made.write(index)
        read = list_images(folder, labels, index)
        assert (read.names, read.classes, read.fingerprint) == (made.names, made.classes, made.fingerprint)
        assert read.labels.tolist() == made.labels.tolist()
        assert [read.path(i) for i in range(len(read))] == [folder / name for name in made.names]


@pytest.mark.parametrize("change", ["add", "remove", "subfolder", "labels", "damage"])
def test_index_is_not_used_after_a_change(change: str, folder: Path, tmp_path: Path) -> None:
    index, labels = tmp_path / "index.arrow", tmp_path / "labels.csv"
    labels.write_text("path,label\ncat/0.png,a\ndog/1.png,b\ndog/3.png,b\n")
    list_images(folder, labels if change == "labels" else None).write(index)
    content = (folder / "cat" / "0.png").read_bytes()
    match change:
        case "add":
            (folder / "cat" / "new.png").write_bytes(content)
        case "remove":
            (folder / "cat" / "0.png").unlink()
        case "subfolder":
            write_bytes(folder / "bird" / "new.png", content)
        case "labels":
            labels.write_text("path,label\ncat/0.png,a\ndog/1.png,b\n")
        case _:
            index.write_bytes(index.read_bytes()[:-20])
    given = labels if change == "labels" else None
    assert list_images(folder, given, index).fingerprint == list_images(folder, given).fingerprint
    assert len(list_images(folder, given, index)) == {"add": 11, "remove": 9, "subfolder": 11, "labels": 2}.get(
        change, 10
    )


def test_index_that_is_as_the_folder_is_read_and_not_the_folder(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index.arrow"
    list_images(folder).write(index)
    times = (folder / "cat").stat()
    (folder / "cat" / "new.png").touch()
    os.utime(folder / "cat", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert len(list_images(folder, None, index)) == 10
