"""`rediffuse detect` with a tiny untrained model and a detector made by hand: what is printed, written and refused."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from detection.tiny import save_weights
from rediffuse.cli.main import main
from rediffuse.zoo.model import load

SIZE = 16


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and, in detector/, a detector that finds every image unsure."""
    folder = tmp_path_factory.mktemp("weights")
    save_weights(folder)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images of one name in two folders, and a text file that is called an image."""
    folder = tmp_path / "images"
    random = np.random.default_rng(0)
    for name in ("a/x.png", "b/x.png"):
        (folder / name).parent.mkdir(parents=True)
        Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / name)
    (folder / "words.png").write_text("no image")
    return folder


def detect(weights: Path, *words: Path | str) -> int:
    flags = ["--model", weights, "--detector", weights / "detector", "--device", "cpu"]
    return main(["detect", *map(str, (*words, *flags))])


def test_images_become_a_table_pictures_and_a_page(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, evidence, page = tmp_path / "new" / "table.csv", tmp_path / "evidence", tmp_path / "page.html"
    assert detect(weights, images / "a", "--out", table, "--evidence", evidence, "--report", page) == 0
    printed = capsys.readouterr()
    assert "x.png  unsure" in printed.out
    assert "1 file: 0 generated, 1 unsure, 0 real" in printed.out
    assert f"evidence: {evidence / 'index.html'}" in printed.out
    assert [row["file"] for row in csv.DictReader(table.read_text().splitlines())] == ["x.png"]
    assert f"report: {page}" in printed.out
    names = [f"x.png.{kind}" for kind in ("error.png", "picture.jpg", "windows.jpg")]
    assert sorted(path.name for path in (evidence / "pictures").iterdir()) == names
    for written in (page, evidence / "index.html"):
        assert "It could not be decided whether the image is generated." in written.read_text()
    assert page.read_text().count("data:image/") == len(names)


def test_a_file_that_is_no_image_gets_a_reason_and_the_others_are_judged(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence = tmp_path / "evidence"
    assert detect(weights, images, "--evidence", evidence) == 1
    printed = capsys.readouterr().out
    assert "2 unsure, 0 real, 1 not judged" in printed
    assert "words.png" in next(line for line in printed.splitlines() if "not judged" in line)
    pictures = sorted(path.relative_to(evidence).as_posix() for path in evidence.rglob("*.picture.jpg"))
    assert pictures == ["pictures/a/x.png.picture.jpg", "pictures/b/x.png.picture.jpg"]
    page = (evidence / "index.html").read_text()
    assert "1 could not be judged" in page
    assert "is not an image in a supported format" in page


def test_a_table_on_standard_output_is_all_that_is_there(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detect(weights, images / "a", "--out", tmp_path / "t.csv") == 0
    capsys.readouterr()
    assert detect(weights, images / "a", "--out", "-") == 0
    printed = capsys.readouterr()
    assert printed.out == (tmp_path / "t.csv").read_text()
    assert printed.err == "1 file: 0 generated, 1 unsure, 0 real\n"


def test_verdicts_as_one_json_document(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.json"
    assert detect(weights, images, "--out", table, "--json") == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["table"] == str(table)
    assert printed["verdicts"] == json.loads(table.read_text())
    assert [verdict["decision"] for verdict in printed["verdicts"]] == ["unsure", "unsure", None]


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"], ids=["lines", "CRLF", "NUL"])
def test_paths_come_from_standard_input(separator: str, weights: Path, images: Path) -> None:
    words = ["detect", "-", str(images / "b"), "--model", str(weights), "--detector", str(weights / "detector")]
    call = [sys.executable, "-m", "rediffuse", *words, "--device", "cpu", "--out", "-", "-q"]
    text = f"{images / 'a' / 'x.png'}{separator}"
    done = subprocess.run(call, input=text.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert [row["file"] for row in csv.DictReader(done.stdout.decode().splitlines())] == ["x.png", "b/x.png"]


@pytest.mark.parametrize(
    ("paths", "line"),
    [
        (["-"], "-: standard input is empty; one path per line is needed"),
        (["-", "-"], "-: standard input can be read only once; give one -"),
    ],
)
def test_standard_input_that_names_nothing_is_one_line(
    paths: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(os.devnull) as nothing:  # noqa: PTH123
        monkeypatch.setattr("sys.stdin", nothing)
        assert main(["detect", *paths]) == 2
    assert capsys.readouterr().err == f"rediffuse: {line}\n"


def test_verdicts_do_not_depend_on_the_batch_size(weights: Path, images: Path, tmp_path: Path) -> None:
    for size in ("1", "2"):
        detect(weights, images, "--batch-size", size, "--out", tmp_path / f"{size}.json")
    assert (tmp_path / "1.json").read_text() == (tmp_path / "2.json").read_text()


def test_results_that_are_there_are_replaced_only_by_force(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (images / "a", "--out", tmp_path / "t.json")
    assert detect(weights, *words) == 0
    assert detect(weights, *words) == 2
    assert "t.json exists already; --force replaces it" in capsys.readouterr().err
    assert detect(weights, *words, "--force") == 0


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--out", "t.xlsx"], "t.xlsx: the name of a table must end in one of .csv, .json, .parquet"),
        (["--out", "folder.csv"], "--out folder.csv: is a folder; give a file in it"),
        (["--evidence", "file"], "--evidence file: is a file; give a folder"),
        (["--report", "page.txt"], "--report page.txt: a name that ends in .html is needed"),
        (["--report", "file/a.html"], "--report file/a.html: {cwd}/file is not a folder that can be written to"),
        (["--out", "file/t.csv"], "--out file/t.csv: {cwd}/file is not a folder that can be written to"),
        (["--model", "nowhere"], "nowhere: no such folder or file, and no model of that name"),
        (
            ["--detector", "folder.csv"],
            "folder.csv: no detector: there is no detector.json in it or in folder.csv/detector",
        ),
        (["--batch-size", "0"], "batch_size=0: at least 1 is needed"),
    ],
    ids=" ".join,
)
def test_bad_usage_is_one_line_and_status_2(
    flags: list[str],
    line: str,
    weights: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    given = ["--model", str(weights), "--detector", str(weights / "detector")]
    assert main(["detect", str(images), *given, *flags]) == 2
    assert capsys.readouterr().err == f"rediffuse: {line.format(cwd=tmp_path)}\n"


def test_stability_adds_columns_and_leaves_the_other_results_as_they_are(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, flags in (("plain", ()), ("stable", ("--stability", "--evidence", tmp_path / "evidence"))):
        assert detect(weights, images, "--batch-size", "1", "--out", tmp_path / f"{name}.json", *flags) == 1
    plain, stable = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("plain", "stable"))
    assert [row["file"] for row in stable] == ["a/x.png", "b/x.png", "words.png"]
    added = {
        f"{column}_{key}" for column in ("probability", "decision") for key in ("jpeg_75", "reduce_0.75", "webp_80")
    }
    for before, after in zip(plain, stable, strict=True):
        assert before.items() <= after.items()
        assert set(after) - set(before) == (added if before["decision"] else set())
    assert (tmp_path / "evidence" / "index.html").is_file()


def test_a_detector_of_another_model_is_refused_with_both_values(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load(weights)
    with torch.no_grad():
        next(model.network.parameters()).add_(1)
    model.save(tmp_path / "other")
    assert main(["detect", str(images), "--model", str(tmp_path / "other"), "--detector", f"{weights}/detector"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert model.provenance.sha256[:8] in line
    assert load(tmp_path / "other").provenance.sha256[:8] in line


def test_names_as_long_as_a_file_system_allows_have_evidence(weights: Path, tmp_path: Path) -> None:
    names = ["x" * 251 + ".png", "y" * 234 + ".png"]
    for name in names:
        Image.new("RGB", (20, 24), "red").save(tmp_path / name)
    evidence = tmp_path / "evidence"
    assert detect(weights, *(tmp_path / name for name in names), "--evidence", evidence) == 0
    assert len(list((evidence / "pictures").iterdir())) == 6
    assert all(name in (evidence / "index.html").read_text() for name in names)


def test_verdicts_reach_the_table_when_a_picture_cannot_be_written(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, evidence = tmp_path / "t.csv", tmp_path / "evidence"
    (evidence / "pictures").mkdir(parents=True)
    (evidence / "pictures" / "b").write_text("in the way of the folder b")
    assert detect(weights, images / "a", images / "b", "--out", table, "--evidence", evidence) == 1
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    assert line.startswith(f"rediffuse: {evidence / 'pictures' / 'b'}")
    assert len(list(csv.DictReader(table.read_text().splitlines()))) == 2
    assert "The pictures are missing: " in (evidence / "index.html").read_text()


def test_an_interrupted_call_writes_a_page_of_what_was_judged(weights: Path, tmp_path: Path) -> None:
    for number in range(400):
        Image.effect_noise((24, 20), number).convert("RGB").save(tmp_path / f"{number:03}.png")
    evidence = tmp_path / "evidence"
    words = ["detect", str(tmp_path), "--model", str(weights), "--detector", str(weights / "detector")]
    words += ["--device", "cpu", "--batch-size", "1", "--evidence", str(evidence), "-q"]
    call = [sys.executable, "-m", "rediffuse", *words]
    # A shell lets what it starts in the background ignore SIGINT.
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    with subprocess.Popen(call, stdout=subprocess.PIPE, preexec_fn=heard) as process:
        while not (evidence / "pictures").is_dir():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        printed = process.communicate()[0].decode()
    assert process.returncode == 130
    page = (evidence / "index.html").read_text()
    [judged] = re.findall(r"The work was interrupted: (\d+) of 400 images were judged.", page)
    assert f"{judged} file" in printed


def test_limits_move_the_thresholds_within_what_the_detector_supports(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.csv"
    assert detect(weights, images / "a", "--out", table, "--max-false-alarms", "0.4", "--max-misses", "0.45") == 0
    [row] = csv.DictReader(table.read_text().splitlines())
    assert (row["max_false_alarms"], row["max_misses"]) == ("0.4", "0.45")
    assert detect(weights, images / "a", "--max-false-alarms", "0.01") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "max_false_alarms=0.01: needs 99 images of photographs that were left out; there are 2 images in 1" in line


def test_a_list_is_judged_with_one_line_for_what_is_missing_and_the_table_put_into_a_store(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text(f"path,label\nimages/a/x.png,generated\nnone.png,real\n{images}/b/x.png,\n")
    out = f"memory:///{tmp_path.name}/verdicts.parquet"
    assert detect(weights, tmp_path / "list.csv", "--out", out) == 1
    printed = capsys.readouterr().out
    assert f"{tmp_path}/none.png: cannot be read: No such file or directory" in printed
    assert f"table: {out}" in printed
    with fsspec.open(out) as file:
        rows = pyarrow.parquet.read_table(file).to_pylist()
    assert [row["file"] for row in rows] == ["images/a/x.png", "none.png", f"{images}/b/x.png"[1:]]
    assert [row["decision"] for row in rows] == ["unsure", None, "unsure"]
    assert detect(weights, tmp_path / "list.csv", "--out", out) == 2
    assert "verdicts.parquet: exists already; --force replaces it" in capsys.readouterr().err
    assert detect(weights, tmp_path / "list.csv", "--out", "s4://a/b.csv") == 2
    assert "s4://a/b.csv: s4 is not a protocol of fsspec" in capsys.readouterr().err
