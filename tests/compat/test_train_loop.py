"""The loop with the old names computes the same weights as guided-diffusion in every step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist

from golden_values import fill, load, relative_error, rnd
from rediffuse.compat.guided_diffusion import logger
from rediffuse.compat.guided_diffusion.resample import ScheduleSampler
from rediffuse.compat.guided_diffusion.script_util import create_gaussian_diffusion
from rediffuse.compat.guided_diffusion.train_util import TrainLoop
from rediffuse.compat.guided_diffusion.unet import UNetModel
from rediffuse.errors import CheckpointError

CASES: dict[str, dict[str, bool]] = {
    "train_mse": {},
    "train_hybrid": {"learn_sigma": True, "rescale_learned_sigmas": True},
}


class Given(ScheduleSampler):
    """The golden timesteps and noise, a part of a batch after the other."""

    def __init__(self, name: str, flags: dict[str, bool]) -> None:
        self.diffusion = create_gaussian_diffusion(**flags)
        self.num_timesteps = self.diffusion.num_timesteps
        self.t = torch.cat([torch.from_numpy(np.random.RandomState(s).randint(0, 1000, 4)) for s in range(4)])
        self.noise = torch.cat([rnd(f"{name}.z{s}", 4, 3, 16, 16) for s in range(4)])

    def weights(self) -> np.ndarray:
        return np.ones(self.num_timesteps)

    def sample(self, batch_size: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
        t, self.t = self.t[:batch_size], self.t[batch_size:]
        return t, torch.ones(batch_size)

    def training_losses(self, model: nn.Module, x: Tensor, t: Tensor, model_kwargs: Any) -> dict[str, Tensor]:
        noise, self.noise = self.noise[: len(x)], self.noise[len(x) :]
        return self.diffusion.training_losses(model, x, t, model_kwargs, noise)


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    with logger.scoped_configure(str(tmp_path), ["csv"]):
        yield
    dist.destroy_process_group()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("microbatch", [-1, 3])
def test_trajectory_is_guided_diffusions(name: str, microbatch: int, one_process: None) -> None:
    meta, golden = load(name)
    given = Given(name, CASES[name])
    loop = TrainLoop(
        model=fill(UNetModel(**meta["kwargs"])),
        diffusion=given,
        data=iter(()),
        batch_size=4,
        microbatch=microbatch,
        lr=1e-3,
        ema_rate=meta["ema"],
        log_interval=1,
        save_interval=10,
        resume_checkpoint="",
        schedule_sampler=given,
        weight_decay=0.01,
    )
    losses = []
    for s in range(4):
        loop.run_step(rnd(f"{name}.x{s}", 4, 3, 16, 16).clamp(-1, 1), {})
        losses.append(logger.dumpkvs()["loss"])
    if microbatch == -1:  # the log has the mean of the parts' means
        assert relative_error(torch.tensor(losses), golden["losses"].mean(axis=-1)) < 2e-5

    x, t = rnd(f"{name}.eval", 2, 3, 16, 16), torch.tensor([10, 900])
    averaged = loop.mp_trainer.master_params_to_state_dict(loop.ema_params[0])
    with torch.no_grad():
        assert relative_error(loop.model.eval()(x, t), golden["out"]) < 2e-4
        loop.model.load_state_dict(averaged)
        assert relative_error(loop.model(x, t), golden["out_ema"]) < 2e-4


def _loop(resume_checkpoint: str = "", num_res_blocks: int = 1, lr_anneal_steps: int = 2) -> TrainLoop:
    return TrainLoop(
        model=UNetModel(8, 3, 32, 3, num_res_blocks, [], channel_mult=(1,)),
        diffusion=create_gaussian_diffusion(steps=40),
        data=iter([(torch.zeros(1, 3, 8, 8), {})] * 2),
        batch_size=1,
        microbatch=-1,
        lr=1e-3,
        ema_rate=0.9,
        log_interval=10,
        save_interval=10,
        resume_checkpoint=resume_checkpoint,
        lr_anneal_steps=lr_anneal_steps,
    )


def test_an_explicit_checkpoint_wins_over_the_newest_of_the_folder_aloud(one_process: None, tmp_path: Path) -> None:
    _loop().run_loop()
    with logger.scoped_configure(str(tmp_path), ["log"]):
        again, chosen = _loop(), _loop(resume_checkpoint=str(tmp_path / "model000000.pt"))
        again.run_loop()
    log = (tmp_path / "log.txt").read_text()
    assert (again.resume_step, chosen.resume_step) == (2, 0)
    assert f"not from {tmp_path}/model000002.pt, the newest in the log folder, since resume_checkpoint is given" in log
    assert f"nothing is left to do: {tmp_path}/model000002.pt, lr_anneal_steps=2" in log


def test_a_folder_of_another_network_is_named(one_process: None, tmp_path: Path) -> None:
    _loop().run_loop()
    with pytest.raises(CheckpointError, match=r"model000002\.pt, the newest in the log folder \(OPENAI_LOGDIR\): does"):
        _loop(num_res_blocks=2)
    state = torch.load(tmp_path / "opt000002.pt", weights_only=True)
    state["param_groups"][0]["params"].pop()
    torch.save(state, tmp_path / "opt000002.pt")
    with pytest.raises(CheckpointError, match=r"opt000002\.pt: does not fit this training's optimiser"):
        _loop()
