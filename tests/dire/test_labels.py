"""Labels files: CSV with the columns path and label."""

from pathlib import Path

import pytest

from rediffuse.dire.labels import read_labels
from rediffuse.errors import InputError


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
    with pytest.raises(InputError, match=r"labels\.csv: cannot be read"):
        read_labels(tmp_path / "labels.csv")
