"""A training that `timeout` stops writes a checkpoint, also with processes that read the images, and with torchrun."""

from pathlib import Path

import pytest
from tiny import write_images

from processes import TORCHRUN, stopped_by_timeout

NETWORK = "--image-size 8 --model-channels 32 --num-res-blocks 1 --channel-mult 1 2 --attention-resolutions 2"
TRAINING = "--num-steps 1000000 --batch-size 4 --log-every 1 --num-workers 1"


@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["one process", "torchrun"])
def test_a_training_that_timeout_stops_writes_a_checkpoint(launcher: tuple[str, ...], tmp_path: Path) -> None:
    folders = ("--data", str(write_images(tmp_path / "images")), "--out", str(tmp_path / "run"))
    words = ("-m", "rediffuse", "train", "diffusion", *folders, *NETWORK.split(), *TRAINING.split())
    output = stopped_by_timeout(*launcher, *words, begun=tmp_path / "run" / "metrics.jsonl")
    assert len(list((tmp_path / "run" / "checkpoints").glob("step_*.pt"))) == 1, output
    assert "SIGTERM: stops after this step and saves" in output
