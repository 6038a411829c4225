"""Runs of guided-diffusion, repeated step by step with our trainer; also a program for several processes."""

import numpy as np
import torch
from accelerate import Accelerator

from golden_values import fill, load, relative_error, rnd
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.models.config import UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.training.config import DiffusionTraining, LoopConfig
from rediffuse.training.diffusion import DiffusionTask
from rediffuse.training.trainer import Trainer

CASES = {"train_mse": ("fixed_large", "mse"), "train_hybrid": ("learned_range", "rescaled_mse")}


class GoldenTask(DiffusionTask):
    """A task that starts from the golden weights."""

    def build(self) -> UNetModel:
        network = super().build()
        fill(network)
        return network


def assert_trajectory_is_guided_diffusions(name: str, microbatch: int | None = None) -> None:
    """Four steps of four images, divided among the processes, with the golden weights, t and noise."""
    meta, golden = load(name)
    variance, loss = CASES[name]
    kwargs = {key: tuple(value) if isinstance(value, list) else value for key, value in meta["kwargs"].items()}
    config = DiffusionTraining(
        data="",
        network=UNetConfig(**kwargs),
        process=ProcessConfig(schedule="linear", variance=variance),
        loop=LoopConfig(
            num_steps=4,
            batch_size=4,
            microbatch=microbatch,
            learning_rate=1e-3,
            weight_decay=0.01,
            ema_rates=(meta["ema"],),
        ),
        loss=loss,
    )
    accelerator = Accelerator(cpu=True)
    trainer = Trainer(GoldenTask(config), config.loop, accelerator)
    size = 4 // accelerator.num_processes
    share = slice(size * accelerator.process_index, size * (accelerator.process_index + 1))
    losses = []
    for s in range(4):
        batch = {
            "x_0": rnd(f"{name}.x{s}", 4, 3, 16, 16).clamp(-1, 1),
            "noise": rnd(f"{name}.z{s}", 4, 3, 16, 16),
            "t": torch.from_numpy(np.random.RandomState(s).randint(0, 1000, 4)),
            "weight": torch.ones(4),
        }
        trainer.train_step({key: value[share] for key, value in batch.items()})
        losses += [values["loss"] for values in trainer.fetch()]
    assert relative_error(torch.stack(losses), golden["losses"]) < 2e-5

    x, t = rnd(f"{name}.eval", 2, 3, 16, 16), torch.tensor([10, 900])
    with torch.no_grad():
        assert relative_error(trainer.network.eval()(x, t), golden["out"]) < 2e-4
        assert relative_error(trainer.averaged(x, t), golden["out_ema"]) < 2e-4


if __name__ == "__main__":
    for case in CASES:
        assert_trajectory_is_guided_diffusions(case)
    print(f"{len(CASES)} trajectories by process {Accelerator().process_index} of {Accelerator().num_processes}")
