"""Programs like guided-diffusion's and DIRE's, which import only the old names, run unchanged.

They all run once in one process (about 8 s of CPU, half of it the import of torch), and once in two connected processes
(12 s).
"""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from processes import TORCHRUN, stopped_by_timeout, torchrun

PROGRAMS = Path(__file__).parent / "programs"
UNET = "--image_size 8 --num_channels 32 --num_res_blocks 1 --channel_mult 1,2 --attention_resolutions 4"
CLASSIFIER = "--image_size 64 --classifier_width 32 --classifier_depth 1 --classifier_attention_resolutions 8"
SUPERRES = "--large_size 64 --small_size 16 --num_channels 32 --num_res_blocks 1 --attention_resolutions 8"
TRAINING = "--data_dir images --batch_size 2 --log_interval 1 --out out"


def run(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "CUDA_"))}
    environment = inherited | variables
    command = [sys.executable, "-W", "error::UserWarning", "-m", "rediffuse.compat", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def write_images(folder: Path, num_images: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(num_images):
        pixels = rng.integers(0, 256, (20, 18, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{('cat', 'dog')[index % 2]}_{index}.png")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of each program in a folder of its name, from six images of two classes."""
    folder = tmp_path_factory.mktemp("programs")
    write_images(folder / "images", 6)
    finished = run(str(PROGRAMS / "in_turn.py"), "images", "out", cwd=folder)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return folder / "out"


@pytest.fixture(scope="module")
def results_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of two connected processes, from eight images."""
    folder = tmp_path_factory.mktemp("two")
    write_images(folder / "images", 8)
    torchrun("-m", "rediffuse.compat", str(PROGRAMS / "in_turn.py"), "images", "out", cwd=folder)
    return folder / "out"


def test_training_writes_the_files_of_the_old_names(results: Path) -> None:
    names = {path.name for path in (results / "image_train").glob("*.pt")}
    kinds = ("model", "ema_0.9_", "ema_0.99_", "opt")
    assert names == {f"{kind}{step}.pt" for kind in kinds for step in ("000000", "000002")}


def test_training_moves_the_weights_and_the_averages_follow_slowly(results: Path) -> None:
    first, last, slow, fast = (
        torch.load(results / "image_train" / name, weights_only=True)["out.2.weight"]
        for name in ("model000000.pt", "model000002.pt", "ema_0.99_000002.pt", "ema_0.9_000002.pt")
    )
    assert not torch.equal(first, last)
    assert (slow - last).norm() > (fast - last).norm() > 0


def test_training_logs_the_loss_by_quarters_of_the_timesteps(results: Path) -> None:
    with (results / "image_train" / "progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["samples"]) for row in rows] == [("0", "4"), ("1", "8")]
    assert {"loss", "mse", "vb", "grad_norm", "param_norm"} <= rows[0].keys()
    assert any(name.startswith("loss_q") for name in rows[0])


def test_a_stopped_training_saves_and_the_same_command_goes_on_from_there(results: Path) -> None:
    folder = results / "stopped_train"
    assert {path.name for path in folder.glob("model*.pt")} == {f"model00000{step}.pt" for step in (0, 1, 3)}
    log = (folder / "log.txt").read_text()
    for line in ("stopped by a signal, saved step 1", "model000001.pt, step 1", "opt000001.pt", "ema_0.9_000001.pt"):
        assert line in log
    with (folder / "progress.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "1", "1", "2"]


def test_samples_are_an_npz(results: Path) -> None:
    with np.load(results / "image_sample" / "samples_3x16x16x3.npz") as npz:
        assert npz["arr_0"].shape == (3, 16, 16, 3)
        assert npz["arr_0"].dtype == np.uint8


def test_likelihood_has_a_term_per_timestep(results: Path) -> None:
    with np.load(results / "image_nll" / "vb_terms.npz") as npz:
        assert npz["arr_0"].shape == (2,)
        assert np.isfinite(npz["arr_0"]).all()


def test_dire_writes_a_map_of_every_image_asked_for_the_last_short_batch_too(results: Path) -> None:
    maps = sorted((results / "compute_dire").glob("*.png"))
    assert [path.name for path in maps] == ["cat_0.png", "cat_2.png", "cat_4.png", "dog_1.png", "dog_3.png"]
    assert np.asarray(Image.open(maps[0])).shape == (16, 16, 3)


def test_a_classifier_trained_in_a_wrapper_guides_samples(results: Path) -> None:
    assert (results / "classifier_train" / "opt000001.pt").exists()
    with np.load(results / "classifier_sample" / "samples.npz") as npz:
        assert npz["arr_0"].shape == (2, 64, 64, 3)
        assert npz["arr_1"].shape == (2,)


def test_small_samples_are_enlarged(results: Path) -> None:
    with np.load(results / "super_res_sample" / "samples.npz") as npz:
        assert npz["arr_0"].shape == (2, 64, 64, 3)


def test_two_processes_write_the_files_that_one_writes(results: Path, results_of_two: Path) -> None:
    def written(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*.*") if path.suffix in (".pt", ".npz", ".csv")}

    assert written(results_of_two) == written(results)


def test_two_processes_take_a_batch_each(results_of_two: Path) -> None:
    with (results_of_two / "image_train" / "progress.csv").open(newline="") as file:
        assert [(row["step"], row["samples"]) for row in csv.DictReader(file)] == [("0", "8"), ("1", "16")]


@pytest.mark.parametrize(
    "program", ["image_sample/samples_3x16x16x3", "classifier_sample/samples", "super_res_sample/samples"]
)
def test_two_processes_make_as_many_samples_as_one_and_no_two_alike(
    program: str, results: Path, results_of_two: Path
) -> None:
    with np.load(results / f"{program}.npz") as one, np.load(results_of_two / f"{program}.npz") as two:
        assert {name: array.shape for name, array in one.items()} == {name: array.shape for name, array in two.items()}
        assert len({image.tobytes() for image in two["arr_0"]}) == len(two["arr_0"])


def test_two_processes_go_through_every_second_image_each(results_of_two: Path) -> None:
    # Asked for five, they make three each: cat_0, cat_4, dog_1 and cat_2, cat_6, dog_3.
    maps = sorted(path.name for path in (results_of_two / "compute_dire").glob("*.png"))
    assert maps == ["cat_0.png", "cat_2.png", "cat_4.png", "cat_6.png", "dog_1.png", "dog_3.png"]


def test_two_processes_stop_together_and_go_on(results_of_two: Path) -> None:
    log = (results_of_two / "stopped_train" / "log.txt").read_text()
    assert (
        log.index("stopped by a signal, saved step 1")
        < log.index("model000001.pt, step 1")
        < log.index("saving step 000003")
    )


def test_a_training_in_two_processes_that_timeout_stops_writes_all_its_files(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 4)
    words = (*TORCHRUN, "-m", "rediffuse.compat", str(PROGRAMS / "image_train.py"), *UNET.split(), *TRAINING.split())
    output = stopped_by_timeout(*words, begun=tmp_path / "out" / "progress.csv", cwd=tmp_path)
    saved = re.search(r"stopped by a signal, saved step (\d+)", output)
    assert saved is not None, output
    step = f"{int(saved[1]):06d}"
    files = {path.name for path in (tmp_path / "out").glob(f"*{step}.pt")}
    assert files == {f"{kind}{step}.pt" for kind in ("model", "opt", "ema_0.9_", "ema_0.99_")}


def test_a_program_with_a_loop_of_its_own_saves_when_timeout_stops_it_and_resumes(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 4)
    program = str(PROGRAMS / "classifier_train.py")
    flags = f"{CLASSIFIER} {TRAINING} --val_data_dir images".split()
    words = ("-m", "rediffuse.compat", program, *flags, "--iterations", "1000000")
    output = stopped_by_timeout(*words, begun=tmp_path / "out" / "progress.csv", cwd=tmp_path)
    saved = re.search(r"saved step (\d+); --resume_checkpoint (\S+) continues from it", output)
    assert saved is not None, output
    step = int(saved[1])
    finished = run(program, *flags, "--resume_checkpoint", saved[2], "--iterations", str(step + 2), cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "out" / f"opt{step + 1:06d}.pt").is_file()


def test_a_missing_file_of_a_program_is_one_line(results: Path) -> None:
    weights = f"--model_path {results}/super_res_train/model000000.pt"
    for given, expected in (("", "give its flag, such as --base_samples"), ("no.npz", "no.npz: there is no such file")):
        flags = f"{SUPERRES} {weights} --base_samples={given}"
        finished = run(str(PROGRAMS / "super_res_sample.py"), *flags.split(), cwd=results.parent, OPENAI_LOGDIR="")
        lines = finished.stderr.splitlines()
        assert finished.returncode == 1, finished.stderr
        assert len(lines) == 1, finished.stderr
        assert lines[0].startswith("rediffuse: ")
        assert expected in lines[0]


def test_an_installed_mpi4py_does_not_hide_the_processes_of_torchrun(tmp_path: Path) -> None:
    (tmp_path / "mpi4py.py").write_text("raise AssertionError")
    (tmp_path / "a.py").write_text("from mpi4py import MPI\nprint(MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size)")
    finished = run("a.py", cwd=tmp_path, WORLD_SIZE="2", RANK="1")
    assert finished.stdout == "1 2\n", finished.stderr


def test_a_missing_script_is_one_line(tmp_path: Path) -> None:
    finished = run("no.py", cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (1, "rediffuse: no.py: there is no such file\n")


def test_help_says_how_to_call_it(tmp_path: Path) -> None:
    assert run("--help", cwd=tmp_path).stdout.startswith("usage: python -m rediffuse.compat SCRIPT.py")
