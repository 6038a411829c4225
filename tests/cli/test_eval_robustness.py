"""`rediffuse eval robustness` as it is called, with a tiny untrained model and a detector made by hand."""

import _thread
import csv
import json
import signal
import threading
from pathlib import Path

import pytest

from detection.tiny import unsure_detector
from labelled_images import picture, write_data
from rediffuse.cli.main import main
from rediffuse.detection.robustness import STRENGTHS
from rediffuse.zoo.model import load
from sampling.tiny import unet


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    unet().save(folder)
    unsure_detector(load(folder)).save(folder / "detector")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", 2)


def robustness(weights: Path, data: Path, *words: Path | str) -> int:
    flags = ("--model", weights, "--detector", weights, "--device", "cpu", "--workers", "1")
    return main(["eval", "robustness", *map(str, (data, *flags, *words))])


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_table_a_file_and_a_figure(
    weights: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, figure = tmp_path / "rows.csv", tmp_path / "curves.png"
    assert robustness(weights, data, "--changes", "blur", "crop", "--out", table, "--figure", figure) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split()[0] for line in lines[1:-2]] == ["unchanged", *["crop"] * 5, *["blur"] * 4]
    assert lines[-2:] == [f"table: {table}", f"figure: {figure}"]
    # 10 rows of 4 images, and two network calls for each image
    assert (
        "10 of 10 rows are to be computed, each by judging 4 images: 80 network calls with one image or window each"
        in printed.err
    )
    assert [row["change"] for row in read(table)] == [line.split()[0] for line in lines[1:-2]]
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_rows_that_are_there_are_not_computed_again(
    weights: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "rows.csv"
    assert robustness(weights, data, "--changes", "blur", "--out", table) == 0
    lines = table.read_text().splitlines()
    marked = [
        line.replace(",0.0,0.0,", ",0.0,0.125,") for line in lines[:-1]
    ]  # a row is missing, the others are marked
    table.write_text("\n".join(marked) + "\n")
    capsys.readouterr()
    assert robustness(weights, data, "--changes", "blur", "--out", table) == 0
    assert "1 of 5 rows are to be computed" in capsys.readouterr().err
    assert table.read_text().splitlines() == [*marked, lines[-1]]
    assert robustness(weights, data, "--changes", "noise", "--out", table) == 0
    assert [row["change"] for row in read(table)] == ["unchanged", *["blur"] * 4, *["noise"] * 4]


def test_an_interrupted_call_keeps_its_rows_and_is_continued(
    weights: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, ended = tmp_path / "rows.csv", threading.Event()

    def interrupt_after_two_rows() -> None:
        while not ended.wait(0.002):
            if table.exists() and len(read(table)) >= 2:
                _thread.interrupt_main()
                ended.wait(1)  # and again, because Python ignores an interrupt that arrives in a finaliser

    watcher = threading.Thread(target=interrupt_after_two_rows)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore the signal
    try:
        watcher.start()
        status = robustness(weights, data, "--out", table)
    finally:
        ended.set()
        watcher.join()
        signal.signal(signal.SIGINT, before)
    finished = table.read_text().splitlines()
    printed = capsys.readouterr()
    assert (status, printed.err.splitlines()[-1]) == (130, "rediffuse: interrupted")
    assert 2 < len(finished) < 30  # the headings and the rows
    assert printed.out.splitlines()[1].startswith("unchanged")
    assert robustness(weights, data, "--changes", "jpeg", "webp", "--out", table) == 0
    assert f"{max(0, 13 - len(finished))} of 12 rows are to be computed" in capsys.readouterr().err
    assert table.read_text().splitlines()[: len(finished)] == finished


def test_rows_of_other_files_are_replaced_only_by_force(
    weights: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "rows.csv"
    words = ("--changes", "screenshot", "--out", table)
    assert robustness(weights, data, *words) == 0
    before = read(table)
    picture(5).save(data / "real" / "0.png")
    assert robustness(weights, data, *words) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"rediffuse: --out {table}: holds rows of another detector or of other files; --force replaces them, or give "
        "another file"
    )
    assert read(table) == before
    assert robustness(weights, data, *words, "--force") == 0
    assert [row["change"] for row in read(table)] == [row["change"] for row in before]
    assert not {row["digest"] for row in read(table)} & {row["digest"] for row in before}


def test_one_json_document_and_status_1_for_an_unreadable_file(
    weights: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "generated" / "words.png").write_text("no image")
    words = ("--changes", "jpeg", "--out", tmp_path / "rows.csv", "--json")
    for _ in range(2):  # computed, and read from the table
        assert robustness(weights, data, *words) == 1
        record = json.loads(capsys.readouterr().out)
        assert [row["strength"] for row in record["rows"]] == [None, *STRENGTHS["jpeg"]]
        assert (record["rows"][0]["num_real"], record["rows"][0]["num_generated"]) == (2, 2)
        assert record["table"] == str(tmp_path / "rows.csv")


def test_rows_are_printed_when_the_figure_cannot_be_written(
    weights: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert robustness(weights, data, "--changes", "screenshot", "--figure", tmp_path / "file" / "curves.png") == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].startswith(
        f"rediffuse: {tmp_path / 'file' / 'curves.png'}: could not be written"
    )
    assert len(printed.out.splitlines()) == 5


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--changes",), "--changes: at least one of jpeg, webp, reduce, crop, blur, noise, screenshot is needed"),
        (
            ("--changes", "jpg"),
            "--changes jpg: jpeg, webp, reduce, crop, blur, noise, screenshot are allowed; did you mean jpeg?",
        ),
        (("--out", "rows.json"), "--out rows.json: a name that ends in .csv is needed"),
        (("--figure", "curves.gif"), "--figure curves.gif: a name that ends in one of .png, .svg, .pdf is needed"),
        (("--figure", "there.png"), "--figure there.png: exists already; --force replaces it"),
        (("--out", "other.csv"), "other.csv: is not a table of `rediffuse eval robustness`; give another file"),
        (("--batch-size", "0"), "batch_size=0: at least 1 is needed"),
    ],
)
def test_a_wrong_call_is_one_line(
    words: tuple[str, ...],
    line: str,
    weights: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("there.png", "other.csv"):
        (tmp_path / name).write_text("a,b\n")
    assert robustness(weights, data, *words) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"rediffuse: {line}"


def test_data_without_a_class_are_refused(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert robustness(weights, tmp_path) == 2
    assert (
        "has no folder of real images (real, 0_real, nature) at any depth; both classes are needed"
        in capsys.readouterr().err
    )
