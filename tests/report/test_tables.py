"""Tables of verdicts: three file formats hold the same, and one verdict is one line in a terminal."""

import csv
import json
from pathlib import Path

import pyarrow.parquet
import pytest

from rediffuse.detection.verdict import Verdict
from rediffuse.errors import InputError, StorageError
from rediffuse.report.tables import text_table, write_table
from report.verdicts import judged, unjudged

VERDICTS = [unjudged("empty.png"), judged("a/b, c.jpg"), judged("=1+1.png", "unsure"), judged("ü.png", "real")]
ROWS = [verdict.to_row() for verdict in VERDICTS]


@pytest.fixture(params=[".csv", ".json", ".parquet"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"verdicts{request.param}"
    write_table(path, ROWS)
    return path


def _read(table: Path) -> list[dict[str, object]]:
    match table.suffix:
        case ".csv":
            with table.open(newline="", encoding="utf-8") as file:
                return [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]
        case ".json":
            return json.loads(table.read_text(encoding="utf-8"))
        case _:
            return pyarrow.parquet.read_table(table).to_pylist()


def test_every_format_has_a_row_per_file_in_the_order_given(table: Path) -> None:
    files = [str(row["file"]).removeprefix("'") for row in _read(table)]
    assert files == [verdict.file for verdict in VERDICTS]


def test_every_format_keeps_the_numbers(table: Path) -> None:
    rows = _read(table)
    assert rows[0].get("probability") is None
    assert float(str(rows[1]["probability"])) == VERDICTS[1].probability
    assert float(str(rows[1]["error_band_3"])) == VERDICTS[1].bands[3]


def test_a_name_that_looks_like_a_formula_is_harmless_in_csv(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ROWS)
    assert "\n'=1+1.png,unsure" in (tmp_path / "t.csv").read_text()


def test_json_has_null_for_numbers_that_are_not_finite(tmp_path: Path) -> None:
    write_table(tmp_path / "a.json", [Verdict(file="a.png", mean_dire=float("nan"), bands=(float("-inf"),)).to_row()])
    [row] = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert (row["mean_dire"], row["error_band_0"]) == (None, None)


def test_no_verdicts_make_an_empty_table(tmp_path: Path) -> None:
    write_table(tmp_path / "t.json", [])
    assert json.loads((tmp_path / "t.json").read_text()) == []


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t\.xlsx: the name of a table must end in one of \.csv, \.json, \.parquet"):
        write_table(tmp_path / "t.xlsx", ROWS)


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        write_table(tmp_path / "file" / "t.csv", ROWS)


def test_the_text_table_is_aligned_and_a_line_each() -> None:
    lines = text_table([*ROWS, judged("line\nbreak\x1b[2J.png").to_row()]).splitlines()
    assert len(lines) == 6
    assert lines[1].endswith("not judged            -          -  holds no pixels")
    assert lines[2].split() == ["a/b,", "c.jpg", "generated", "0.930", "0.0123"]
    assert "\x1b" not in lines[5]
