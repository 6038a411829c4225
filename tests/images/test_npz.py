import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rediffuse.errors import InputError
from rediffuse.images.npz import NpzBatch, read_npz, write_npz

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("labels", [None, [2, 0, 1]], ids=["plain", "with classes"])
def test_a_batch_is_what_numpy_reads_and_what_was_written(labels: list[int] | None, tmp_path: Path) -> None:
    path = tmp_path / "batch.npz"
    write_npz(path, iter(PIXELS), PIXELS.shape, labels)
    with np.load(path) as archive:
        assert archive.files == (["arr_0"] if labels is None else ["arr_0", "arr_1"])
        np.testing.assert_array_equal(archive["arr_0"], PIXELS)
        assert archive["arr_0"].dtype == np.uint8
    pixels, read = read_npz(path)
    np.testing.assert_array_equal(pixels, PIXELS)
    assert (None if read is None else read.tolist()) == labels


def test_what_numpy_saves_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "saved.npz", PIXELS, np.array([1, 1, 0]))
    pixels, labels = read_npz(tmp_path / "saved.npz")
    np.testing.assert_array_equal(pixels, PIXELS)
    assert labels is not None
    assert labels.tolist() == [1, 1, 0]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_batch_is_read_in_parts_of_any_size(save: Callable[..., None], tmp_path: Path) -> None:
    save(tmp_path / "batch.npz", PIXELS)
    batch = NpzBatch(tmp_path / "batch.npz")
    assert (len(batch), batch.shape) == (3, (3, 4, 5, 3))
    for size, lengths in ((1, [1, 1, 1]), (2, [2, 1]), (100, [3])):
        parts = list(batch.batches(size))
        assert [len(part) for part in parts] == lengths
        np.testing.assert_array_equal(np.concatenate(parts), PIXELS)


def test_equal_batches_are_equal_files(tmp_path: Path) -> None:
    for name in "ab":
        write_npz(tmp_path / name, PIXELS, PIXELS.shape, [0, 1, 2])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"x": PIXELS}, "holds no arr_0"),
        ({"arr_0": PIXELS.astype(np.float32)}, r"arr_0 is \(3, 4, 5, 3\) float32; \(N, H, W, 3\) uint8 is needed"),
        ({"arr_0": PIXELS[..., 0]}, r"arr_0 is \(3, 4, 5\) uint8"),
        ({"arr_0": PIXELS[:0]}, r"arr_0 is \(0, 4, 5, 3\) uint8"),
        (
            {"arr_0": np.asfortranarray(PIXELS)},
            r"arr_0 is stored in column order; save numpy.ascontiguousarray\(arr_0\) instead",
        ),
        ({"arr_0": PIXELS, "arr_1": np.zeros(2, np.int64)}, r"arr_1 is \(2,\) int64; \(3,\) integers are needed"),
        ({"arr_0": PIXELS, "arr_1": np.zeros(3)}, r"arr_1 is \(3,\) float64"),
    ],
)
def test_other_arrays_are_refused(arrays: dict[str, np.ndarray], line: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "batch.npz", **arrays)
    with pytest.raises(InputError, match=line):
        read_npz(tmp_path / "batch.npz")


def test_a_batch_that_ends_early_or_was_damaged_is_refused_where_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "batch.npz"
    write_npz(path, PIXELS, PIXELS.shape)
    with zipfile.ZipFile(path) as archive:
        content = archive.read("arr_0.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", content[:-1])
    with pytest.raises(InputError, match=r"batch\.npz: arr_0 ends early; copy or download the file again"):
        list(NpzBatch(path).batches(2))

    many = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    for save in (np.savez, np.savez_compressed):
        save(path, many)
        damaged = bytearray(path.read_bytes())
        damaged[90_000:90_100] = bytes(100)
        path.write_bytes(damaged)
        batch = NpzBatch(path)
        with pytest.raises(InputError, match=r"batch\.npz: cannot be read as an \.npz of samples: "):
            list(batch.batches(7))


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "batch.npz"
    for content in (b"", b"PK\x03\x04", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"batch\.npz: cannot be read"):
            read_npz(path)
    np.save(tmp_path / "array.npy", PIXELS)
    with pytest.raises(InputError, match=r"array\.npy: cannot be read as an \.npz of samples"):
        read_npz(tmp_path / "array.npy")
    with pytest.raises(InputError, match=r"missing\.npz: cannot be read: No such file or directory"):
        read_npz(tmp_path / "missing.npz")
