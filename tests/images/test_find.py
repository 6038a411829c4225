"""Files, folders, patterns and links become a list without duplicates, with unique and safe names."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rediffuse.errors import InputError
from rediffuse.images.find import MemoryImage, find_images, gather_images

PARTS = st.sampled_from(["a", "A", "b", "a-2", "c d", "é", "x:y", "back\\slash", "new\nline", "..."])
FILES = st.lists(st.tuples(PARTS, PARTS, st.sampled_from([".png", ".PNG", ".jpg"])), min_size=1, max_size=8)


def plant(root: Path, *files: str) -> Path:
    """Make empty files below `root`: finding does not read them."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def names(*paths: Path | str) -> list[str]:
    return [image.name for image in find_images(paths)]


def refusal(*paths: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        find_images(paths)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folder_is_searched_in_order_and_its_structure_kept(tmp_path: Path) -> None:
    plant(tmp_path, "b/2.png", "b/1.JPG", "a.webp", "b/c/3.Tif", "notes.txt", ".hidden.png", ".git/x.png", "png")
    assert names(tmp_path) == ["a.webp", "b/1.JPG", "b/2.png", "b/c/3.Tif"]
    assert find_images([tmp_path])[1].path == tmp_path / "b" / "1.JPG"


def test_file_that_is_given_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    plant(tmp_path, "picture", ".hidden.xyz")
    assert names(tmp_path / "picture", str(tmp_path / ".hidden.xyz")) == ["picture", ".hidden.xyz"]


def test_pattern_that_no_shell_expanded_is_expanded(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.png", "a/b/2.png", "a/3.jpg")
    assert names(tmp_path / "a" / "*.png") == ["1.png"]
    assert names(f"{tmp_path}/**/*.png") == ["1.png", "2.png"]
    assert "the pattern matches nothing" in refusal(tmp_path / "*.gif")


def test_existing_file_with_a_bracket_is_no_pattern(tmp_path: Path) -> None:
    plant(tmp_path, "a[1].png", "a1.png")
    assert names(tmp_path / "a[1].png") == ["a[1].png"]


def test_missing_path_names_its_nearest_neighbour(tmp_path: Path) -> None:
    plant(tmp_path, "photos/cat.png")
    assert refusal(tmp_path / "photos" / "cta.png") == (
        f"{tmp_path}/photos/cta.png: does not exist; did you mean cat.png?"
    )
    assert refusal(tmp_path / "photo" / "cat.png").endswith("does not exist; did you mean photos?")
    assert refusal(tmp_path / "quite another").endswith("does not exist")
    assert refusal(tmp_path / "photos" / "cat.png" / "ear.png").endswith("does not exist")
    assert refusal(tmp_path / ("x" * 300)).endswith("cannot be read: File name too long")


def test_folder_without_images_and_an_empty_list_are_refused(tmp_path: Path) -> None:
    plant(tmp_path, "notes.txt", "sub/more.txt")
    assert f"{tmp_path}: holds no images (.jpg, " in refusal(tmp_path)
    assert "give at least one" in refusal()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_that_cannot_be_listed_is_refused(tmp_path: Path) -> None:
    plant(tmp_path, "a.png", "secret/b.png")
    (tmp_path / "secret").chmod(0)
    assert "secret: cannot be listed: Permission denied" in refusal(tmp_path)


def test_same_file_appears_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "a/1.png", "a/2.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a" / "1.png")
    monkeypatch.chdir(tmp_path)
    assert names("a", "a/1.png", tmp_path / "a" / "*.png", "link.png", "./a/../a/2.png") == ["1.png", "2.png"]


def test_link_to_a_folder_is_followed_and_a_loop_ends(tmp_path: Path) -> None:
    plant(tmp_path / "data", "1.png", "sub/2.png")
    (tmp_path / "data" / "sub" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "self").symlink_to(tmp_path / "data" / "self")
    plant(tmp_path / "elsewhere", "3.png")
    (tmp_path / "data" / "other").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "data") == ["1.png", "other/3.png", "sub/2.png"]


def test_link_to_nothing_is_left_for_decoding_to_report(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert names(tmp_path) == names(tmp_path / "gone.png") == ["gone.png"]


def test_a_name_that_is_taken_gets_its_folder_then_a_number(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.png", "b/1.png", "b/2.png", "x/b/1.png")
    assert names(tmp_path / "a", tmp_path / "b") == ["1.png", "b/1.png", "2.png"]
    assert names(tmp_path / "a/1.png", tmp_path / "b/1.png") == ["1.png", "b/1.png"]
    assert names(tmp_path / "b", tmp_path / "x/b", tmp_path / "a") == ["1.png", "2.png", "b/1.png", "a/1.png"]
    assert names(tmp_path / "a", tmp_path / "b", tmp_path / "x/b") == ["1.png", "b/1.png", "2.png", "b/1-2.png"]


def test_folder_given_as_dots_still_names_safely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "a/1.png", "b/1.png")
    monkeypatch.chdir(tmp_path / "a")
    assert names(".", "../b") == ["1.png", "b/1.png"]
    assert names("..") == ["a/1.png", "b/1.png"]


def test_name_that_is_not_unicode_is_replaced(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))).touch()
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe8.png"))).touch()
    found = find_images([tmp_path])
    assert len({image.name.encode("utf-8") for image in found}) == 2
    assert all(image.path.exists() for image in found)


@settings(max_examples=40)
@given(files=FILES, given=st.lists(st.sampled_from([".", "a", "b", "a/*", "**/*.png"]), min_size=1, max_size=4))
def test_names_are_never_equal_never_escape_and_never_depend_on_the_day(
    files: Sequence[tuple[str, str, str]], given: Sequence[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = plant(Path(folder), "a/x.png", "b/x.png", *(f"{part}/{stem}{suffix}" for part, stem, suffix in files))
        found = find_images([root / path for path in given])
        assert found == find_images([root / path for path in given])
    assert len({image.path.resolve() for image in found}) == len(found)
    assert len({image.name.casefold() for image in found}) == len(found)
    for name in (PurePosixPath(image.name) for image in found):
        assert not name.is_absolute()
        assert ".." not in name.parts
        assert str(name).isprintable()
        assert not set(str(name)) & set("\\:")


def test_images_in_memory_are_named_by_their_place_among_files(tmp_path: Path) -> None:
    plant(tmp_path, "a.png", "image 0", "folder/b.png")
    pixels = np.zeros((8, 8, 3), np.uint8)
    found = gather_images([pixels, tmp_path / "image 0", tmp_path / "folder", Image.fromarray(pixels)])
    assert [image.name for image in found] == ["image 0", f"{tmp_path.name}/image 0", "b.png", "image 3"]
    assert [isinstance(image, MemoryImage) for image in found] == [True, False, False, True]
    assert found[3].source == "image 3"
    assert [image.name for image in gather_images(np.stack([pixels, pixels]))] == ["image 0", "image 1"]
