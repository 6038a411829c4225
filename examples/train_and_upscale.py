"""Train a tiny super-resolution model for a few seconds, and compare its enlargements with bicubic ones.

python examples/train_and_upscale.py FOLDER [NUM_STEPS]

A few seconds are too short for good enlargements, as the printed figures show.
"""

import subprocess
import sys
from pathlib import Path

import sklearn.datasets
import torch
from torch import Tensor
from torch.nn import functional as F

import rediffuse

SIZE = 32
FLAGS = f"""--small-size {SIZE // 2} --image-size {SIZE} --model-channels 32 --channel-mult 1 1 --num-res-blocks 1
    --attention-resolutions --batch-size 8 --learning-rate 1e-3 --ema-rates 0.9 --device cpu""".split()


def main(folder: Path, num_steps: int) -> None:
    seen, unseen = sklearn.datasets.load_sample_images().images  # of two photographs
    for place in range(40):
        row, column = divmod(place * 45, 400)
        photo = rediffuse.read_image(seen[row * 4 :, column:][:SIZE, :SIZE], size=SIZE)
        rediffuse.write_image(folder / "photos" / f"{place}.png", photo)
    # A second call of the same command continues a stopped training.
    train = [sys.executable, "-m", "rediffuse", "train", "superres", *FLAGS, "--num-steps", str(num_steps)]
    subprocess.run([*train, "--data", folder / "photos", "--out", folder / "run"], check=True)

    model = rediffuse.load(folder / "run" / "model")
    x_0 = rediffuse.read_image([unseen[200:, 256 + SIZE * i :][:SIZE, :SIZE] for i in range(4)], size=SIZE)
    small = F.interpolate(x_0, (SIZE // 2, SIZE // 2), mode="area")
    settings = rediffuse.SamplingSettings(steps=25)
    enlarged = torch.stack(list(rediffuse.upscale(model, small, settings, seeds=range(4))))
    bicubic = F.interpolate(small, (SIZE, SIZE), mode="bicubic").clamp(-1, 1)
    print(f"model {psnr(enlarged, x_0):.1f} dB, bicubic {psnr(bicubic, x_0):.1f} dB")
    rediffuse.write_image(folder / "enlarged.png", torch.cat([bicubic, enlarged, x_0]), columns=4)


def psnr(images: Tensor, x_0: Tensor) -> float:
    """Peak signal-to-noise ratio in dB: the peak is 2, from -1 to 1."""
    return (10 * torch.log10(4 / (images - x_0).square().mean())).item()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 100)
