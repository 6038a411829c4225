"""Sets of images: the same pixels from an .npz and from files, and errors for everything else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rediffuse.errors import ConfigError, InputError
from rediffuse.evaluation.batches import open_set
from rediffuse.images.crop import center_crop


@pytest.fixture
def npz(pixels: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, pixels, np.arange(12))  # arr_0, arr_1: with labels
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_and_a_folder_give_the_same_batches(save: object, pixels: np.ndarray, folder: Path) -> None:
    path = folder.parent / "samples.npz"
    save(path, pixels)  # type: ignore[operator]
    for source in (path, folder):
        images = open_set(str(source)).images
        assert images is not None
        assert len(images) == 12
        batches = list(images.batches(5))
        assert [len(batch) for batch in batches] == [5, 5, 2]
        assert np.array_equal(np.concatenate(batches), pixels)


def test_a_size_cuts_images_from_both(npz: Path, folder: Path, pixels: np.ndarray) -> None:
    expected = np.stack([center_crop(image, 8) for image in pixels])
    for source in (npz, folder):
        images = open_set(str(source), size=8).images
        assert images is not None
        assert np.array_equal(np.concatenate(list(images.batches(100))), expected)


def test_the_digest_follows_the_content_and_not_the_place(npz: Path, folder: Path, tmp_path: Path) -> None:
    copy = npz.rename(tmp_path / "renamed.npz")
    digests = [open_set(str(copy)).digest, open_set(str(folder)).digest]
    digests += [open_set(str(source), size=8).digest for source in (copy, folder)]
    before = digests[1]
    assert open_set(str(folder.rename(tmp_path / "moved"))).digest == before
    Image.new("RGB", (10, 10)).save(tmp_path / "moved" / "00.png")
    digests.append(open_set(str(tmp_path / "moved")).digest)
    assert len(set(digests)) == 5


def test_a_reference_batch_brings_its_statistics(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "reference.npz"
    np.savez(path, arr_0=pixels, mu=np.zeros(3), sigma=np.eye(3), mu_s=np.ones(2, np.float32), sigma_s=np.eye(2))
    given = open_set(str(path))
    assert given.images is not None
    assert given.pooled is not None
    assert given.spatial is not None
    assert given.pooled.covariance.trace() == 3
    assert given.spatial.mean.tolist() == [1, 1]
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    given = open_set(str(path))
    assert (given.images, given.spatial) == (None, None)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, r"holds x; images \(arr_0\) or statistics \(mu and sigma\) are needed"),
        ({"mu": np.zeros(3)}, "holds mu; images"),
        ({"arr_0": np.zeros((2, 8, 8, 3))}, r"arr_0 is \(2, 8, 8, 3\) float64; \(N, H, W, 3\) uint8 is needed"),
        ({"arr_0": np.zeros((2, 3, 8, 8), np.uint8)}, r"arr_0 is \(2, 3, 8, 8\) uint8"),
        ({"arr_0": np.zeros((0, 8, 8, 3), np.uint8)}, r"arr_0 is \(0, 8, 8, 3\)"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, r"mu is \(3,\) and sigma \(2, 2\); \(D,\) and \(D, D\) are needed"),
        ({"mu": np.array(["a"]), "sigma": np.eye(1)}, r"cannot be read as an \.npz of images or statistics: could not"),
    ],
)
def test_an_npz_of_something_else_is_one_line(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        open_set(str(path))


def test_a_damaged_npz_is_one_line(npz: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.npz: cannot be read: No such file"):
        open_set(str(tmp_path / "none.npz"))
    for content in (b"", b"no zip", npz.read_bytes()[:2000]):
        npz.write_bytes(content)
        with pytest.raises(InputError, match=r"samples\.npz: cannot be read as an \.npz of images or statistics: "):
            open_set(str(npz))


def test_an_unreadable_file_is_a_failure_and_not_the_end(folder: Path) -> None:
    (folder / "05.png").write_bytes(b"no image")
    images = open_set(str(folder)).images
    assert images is not None
    assert sum(len(batch) for batch in images.batches(5)) == 11
    [reason] = images.failures
    assert "05.png" in reason


def test_images_of_two_sizes_are_refused(folder: Path) -> None:
    Image.new("RGB", (12, 10)).save(folder / "05.png")
    images = open_set(str(folder)).images
    assert images is not None
    with pytest.raises(InputError, match=r"05\.png: 12x10 pixels, but others have 10x10: give a size to crop to"):
        list(images.batches(5))


def test_a_size_below_one_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="size=0: at least 1 is needed"):
        open_set(str(folder), size=0)
