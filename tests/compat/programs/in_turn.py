"""Runs the other programs one after the other in one process, so that torch is imported only once.

usage: in_turn.py IMAGES OUT
"""

import runpy
import shlex
import signal
import sys
from pathlib import Path

import torch

HERE, IMAGES, OUT = Path(__file__).parent, sys.argv[1], Path(sys.argv[2])

UNET = "--num_channels 32 --num_res_blocks 1 --channel_mult 1,2 --learn_sigma True --diffusion_steps 40"
SMALL = f"{UNET} --image_size 16 --attention_resolutions 8"
LARGE = f"{UNET} --image_size 64 --attention_resolutions 32"
"""It takes the same weights: attention stands at half the size either way."""
CLASSIFIER = "--image_size 64 --classifier_width 32 --classifier_depth 1 --classifier_attention_resolutions 8"
SUPERRES = "--large_size 64 --small_size 16 --num_channels 32 --num_res_blocks 1 --attention_resolutions 8"
TRAINING = f"--data_dir {IMAGES} --batch_size 4 --log_interval 1"
SAMPLING = f"--model_path {OUT}/image_train/ema_0.99_000002.pt --batch_size 2 --timestep_respacing 2"
MODEL = f"{OUT}/super_res_train/model000000.pt"
SAMPLES = f"{OUT}/image_sample/samples_3x16x16x3.npz"


def run(program: str, flags: str) -> None:
    sys.argv = [program, *shlex.split(flags), "--out", str(OUT / program)]
    runpy.run_path(str(HERE / f"{program}.py"), run_name="__main__")


torch.set_num_threads(1)
run("image_train", f"{SMALL} {TRAINING} --microbatch 3 --lr_anneal_steps 2 --schedule_sampler loss-second-moment")
run("image_sample", f"{SMALL} {SAMPLING} --num_samples 3")
run("image_nll", f"{SMALL} {SAMPLING} --data_dir {IMAGES} --num_samples 4")
run("compute_dire", f"{SMALL} {SAMPLING} --images_dir {IMAGES} --num_samples 5")
run("classifier_train", f"{CLASSIFIER} {TRAINING} --val_data_dir {IMAGES} --iterations 2")
classifier = f"{OUT}/classifier_train/model000001.pt"
run("classifier_sample", f"{LARGE} {CLASSIFIER} {SAMPLING} --classifier_path {classifier} --num_samples 2")
try:
    run("stopped_train", f"{SMALL} {TRAINING} --stop_at 1")
except SystemExit as stop:
    if stop.code != 128 + signal.SIGTERM:
        raise
run("stopped_train", f"{SMALL} {TRAINING} --lr_anneal_steps 3")
run("super_res_train", f"{SUPERRES} {TRAINING} --lr_anneal_steps 1")
run(
    "super_res_sample",
    f"{SUPERRES} --timestep_respacing 2 --model_path {MODEL} --base_samples {SAMPLES} --num_samples 2",
)
