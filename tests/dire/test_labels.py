"""Labels files: CSV with the columns path and label."""

from pathlib import Path

import pytest

from rediffuse.dire.labels import read_labels, with_classes
from rediffuse.errors import ConfigError, InputError, StorageError
from rediffuse.images.find import FoundImage


def test_labels_by_name(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text('path,label,note\na.png,0,\n"sub/b, c.jpg",12,x\n')
    assert read_labels(tmp_path / "labels.csv") == {"a.png": 0, "sub/b, c.jpg": 12}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "the columns path and label are needed, given nothing"),
        ("file,class\na.png,0\n", "needed, given file, class"),
        ("path,label\na.png,hat\n", "line 2: the label of a.png is 'hat'"),
        ("path,label\na.png,-1\n", "line 2: the label of a.png is '-1'"),
        ("path,label\na.png\n", "line 2: the label of a.png is ''"),
        ("path,label\na.png,0\na.png,1\n", "line 3: a.png occurs twice"),
        (b"\xff\xfe\x00", "cannot be read as a CSV file"),
    ],
)
def test_other_files_are_refused_with_the_line(tmp_path: Path, content: str | bytes, reason: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=reason):
        read_labels(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"labels\.csv: does not exist"):
        read_labels(tmp_path / "labels.csv")


def test_every_file_gets_a_class_of_the_model() -> None:
    files = [FoundImage(Path("a.png"), "a.png", label=1), FoundImage(Path("b.png"), "b.png")]
    for classes, expected in ((2, [2, 2]), ({"a.png": 0, "b.png": 2}, [0, 2])):
        assert [found.label for found in with_classes(files, 3, classes)] == expected
    assert [found.label for found in with_classes(files[:1], 3)] == [1]  # that of the list in which it was found
    assert [found.label for found in with_classes(files, None)] == [None, None]


def test_a_class_that_is_missing_or_wrong_is_named_with_its_file() -> None:
    files = [FoundImage(Path("a.png"), "a.png")]
    with pytest.raises(ConfigError, match=r"^labels: this model is not class-conditional"):
        with_classes(files, None, {"a.png": 0})
    none, high, low = "no class", "class 3", "class -1"
    for classes, given in ((None, none), ({"b.png": 0}, none), ({"a.png": 3}, high), (-1, low)):
        with pytest.raises(ConfigError, match=rf"a\.png: {given} is given; .* from 0 to 2 per file$"):
            list(with_classes(files, 3, classes))
