"""`rediffuse audit` and `rediffuse align` as they are called: on real files, and wrongly."""

import json
from pathlib import Path

import pytest

from labelled_images import as_jpeg, write_class, write_data
from rediffuse.cli.main import main


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNG files of one class, JPEG files of the other one."""
    return write_data(tmp_path_factory.mktemp("data"), 40, generated=as_jpeg)


def test_the_audit_ends_with_its_conclusion(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(data / "real"), str(data / "generated")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "40 real and 40 generated files"
    assert lines[-1].startswith("these data cannot carry a claim, because the files reveal the class (AUC 1.000")
    assert "no duplicates" in lines


def test_one_folder_with_both_classes_gives_the_same_record(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = []
    for words in ([data], ["--real", data / "real", "--generated", data / "generated" / "*.jpg"]):
        assert main(["audit", *map(str, words), "--json", "--workers", "1"]) == 0
        records.append(json.loads(capsys.readouterr().out))
    assert records[0] == records[1]
    assert records[0]["can_carry_a_claim"] is False
    assert records[0]["facts"]["files"]["value"] > 0.99
    assert records[0]["differences"][0]["generated"] in (0, 1)


def test_the_page_is_one_file_with_escaped_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("real", "generated"):
        write_class(tmp_path / name / f"<b>&{name}", 0, 20)  # the same pictures in both
    page = tmp_path / "new" / "audit.html"
    assert main(["audit", str(tmp_path), "--out", str(page)]) == 0
    assert f"page: {page}" in capsys.readouterr().out
    text = page.read_text()
    assert "real/&lt;b&gt;&amp;real/7.png, generated/&lt;b&gt;&amp;generated/7.png" in text
    assert "<b>" not in text
    assert "cannot carry a claim" in text
    assert not any(part in text for part in ("http:", "https:", "<script", "src="))
    assert main(["audit", str(tmp_path), "--out", str(page)]) == 2
    assert "audit.html: already exists; --force replaces it" in capsys.readouterr().err


def test_an_unreadable_file_is_a_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path, 20)
    (data / "real" / "words.png").write_text("no image")
    assert main(["audit", str(data)]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"rediffuse: warning: skipped: {data}/real/words.png: is not an image")
    assert "20 real and 20 generated files; 1 could not be read" in printed.out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("audit", "no real images are given; both classes are needed"),
        ("audit --real {data}/real", "no generated images are given; both classes are needed"),
        (
            "audit {data}/real",
            "{data}/real: has no folder of real images (real, 0_real, nature) at any depth; both classes are needed",
        ),
        ("audit a b c", "c: REAL and GENERATED are one path each; --real and --generated take several"),
        ("audit {data} --real x", "{data}: give either paths, or --real and --generated"),
        ("audit {data} --out page.txt", "--out page.txt: the page ends in .html"),
        ("audit {data} --files 0", "--files 0: at least 1 is needed"),
        (
            "audit {data} --detector {data}",
            "{data}: no detector: there is no detector.json in it or in {data}/detector",
        ),
        ("align {data}/x {data}/y", "{data}/x: is not a folder"),
        ("align {data}", "OUT is required; see `rediffuse align --help`"),
        ("align {data} {data}/b", "{data}/b: is inside {data} and would be read as a part of it; give another folder"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    words: str, line: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.format(data=data).split()) == 2
    assert capsys.readouterr().err == f"rediffuse: {line.format(data=data)}\n"


def test_an_aligned_copy_passes_the_audit_that_its_source_fails(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["align", str(data), str(tmp_path / "out"), "--size", "32", "--draws", "2"]
    assert main(call) == 0
    assert "160 files written: windows of 32 px, reduced to 26, 20, 16, 13, 10 px" in capsys.readouterr().out
    assert main([*call, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["num_files"], record["num_new"], record["failures"]) == (160, 0, [])
    assert main(["audit", str(tmp_path / "out")]) == 0
    assert "the files reveal the class" not in capsys.readouterr().out


def test_a_file_that_is_too_small_is_a_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "data", 1)
    assert main(["align", str(data), str(tmp_path / "out"), "--size", "33"]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("smaller than the window of 33 pixels: left out") == 2
    assert "2 of 2 files left out" in printed.out
