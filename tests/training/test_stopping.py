"""A training that `timeout` stops writes a checkpoint, also with processes that read the images, and with torchrun."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import write_images

from processes import TORCHRUN, environment, stopped_by_timeout

NETWORK = "--image-size 8 --model-channels 32 --num-res-blocks 1 --channel-mult 1 2 --attention-resolutions 2"
TRAINING = "--num-steps 1000000 --batch-size 4 --log-every 1 --num-workers 1"


@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["one process", "torchrun"])
def test_a_training_that_timeout_stops_writes_a_checkpoint(launcher: tuple[str, ...], tmp_path: Path) -> None:
    folders = ("--data", str(write_images(tmp_path / "images")), "--out", str(tmp_path / "run"))
    words = ("-m", "rediffuse", "train", "diffusion", *folders, *NETWORK.split(), *TRAINING.split())
    output = stopped_by_timeout(*launcher, *words, begun=tmp_path / "run" / "metrics.jsonl")
    assert len(list((tmp_path / "run" / "checkpoints").glob("step_*.pt"))) == 1, output
    assert "SIGTERM: stops after this step and saves" in output


def test_a_process_whose_other_one_was_killed_says_so_in_one_line(tmp_path: Path) -> None:
    folders = ("--data", str(write_images(tmp_path / "images")), "--out", str(tmp_path / "run"))
    words = [sys.executable, "-m", "rediffuse", "train", "diffusion", *folders, *NETWORK.split(), *TRAINING.split()]
    with socket.create_server(("localhost", 0)) as free:
        port = str(free.getsockname()[1])
    shared = environment() | {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    first, second = (
        subprocess.Popen(words, env=shared | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    )
    while not (tmp_path / "run" / "metrics.jsonl").exists() and first.poll() is None:
        time.sleep(0.05)
    second.kill()
    errors = first.communicate(timeout=60)[1]
    second.communicate()
    assert first.returncode == 1
    assert "rediffuse: another process of this training has ended" in errors.splitlines()[-1]
    assert "Traceback" not in errors
