"""Train a tiny super-resolution model for a few seconds, enlarge what it has not seen, and compare with bicubic.

python examples/train_and_upscale.py FOLDER [NUM_STEPS]

A few seconds are far too short: the figures it prints say so. `rediffuse train superres` is the command for more.
"""

import sys
from pathlib import Path

import sklearn.datasets
import torch
from torch.nn import functional as F

import rediffuse
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.files import write_bytes
from rediffuse.images.encode import png_bytes
from rediffuse.images.montage import tile
from rediffuse.images.tensors import to_tensor, to_uint8
from rediffuse.models.config import UNetConfig
from rediffuse.training.config import LoopConfig, SuperResTraining
from rediffuse.training.loop import train
from rediffuse.training.superres import SuperResTask, psnr

SIZE = 32


def main(folder: Path, num_steps: int) -> None:
    seen, unseen = sklearn.datasets.load_sample_images().images  # of two photographs
    for place in range(40):
        row, column = divmod(place * 45, 400)
        write_bytes(folder / "photos" / f"{place}.png", png_bytes(seen[row * 4 :, column:][:SIZE, :SIZE]))
    config = SuperResTraining(
        data=str(folder / "photos"),
        small_size=SIZE // 2,
        network=UNetConfig(image_size=SIZE, model_channels=32, out_channels=6, num_res_blocks=1, channel_mult=(1, 1)),
        process=ProcessConfig(schedule="linear"),
        loop=LoopConfig(num_steps=num_steps, batch_size=8, learning_rate=1e-3, ema_rates=(0.9,), device="cpu"),
    )
    train(SuperResTask(config), config.loop, folder / "run")  # the same call again goes on, or is done already

    model = rediffuse.load(folder / "run" / "model")
    middle = unseen[200 : 200 + SIZE, 256 : 256 + 4 * SIZE]
    x_0 = to_tensor(middle.reshape(SIZE, 4, SIZE, 3).swapaxes(0, 1))  # (4, 3, S, S) in [-1, 1]
    small = F.interpolate(x_0, (SIZE // 2, SIZE // 2), mode="area")
    settings = rediffuse.SamplingSettings(steps=25)
    enlarged = torch.stack(list(rediffuse.upscale(model, small, settings, seeds=range(4))))
    bicubic = F.interpolate(small, (SIZE, SIZE), mode="bicubic").clamp(-1, 1)
    print(f"model {psnr(enlarged, x_0).mean():.1f} dB, bicubic {psnr(bicubic, x_0).mean():.1f} dB")
    write_bytes(folder / "enlarged.png", png_bytes(tile(to_uint8(torch.cat([bicubic, enlarged, x_0])), columns=4)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 100)
