"""One step of the trainer: what it reads from the device, and what a step without a finite loss changes."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tiny import tiny, tiny_classifier, tiny_superres
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rediffuse.training.classifier import ClassifierTask
from rediffuse.training.config import DiffusionTraining
from rediffuse.training.diffusion import DiffusionTask
from rediffuse.training.randomness import Place
from rediffuse.training.superres import SuperResTask
from rediffuse.training.task import Batch, Terms
from rediffuse.training.trainer import Trainer


class Reads(TorchDispatchMode):
    """Counts the operations that need a value of a tensor on the host, for which a GPU has to finish its work."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select"):
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


class Bad(DiffusionTask):
    """The loss of the next step is not a number if `is_bad` is set."""

    is_bad = False

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        terms = super().loss(network, batch)
        return terms | {"loss": terms["loss"] * (torch.nan if self.is_bad else 1)}


def config_of(sampler: str) -> DiffusionTraining:
    config = tiny(Path(), num_steps=10, microbatch=3, clip_norm=1.0, network={"dropout": 0.0})
    return replace(config, timestep_sampler=sampler)  # type: ignore[arg-type]


def trainer_of(task: DiffusionTask | ClassifierTask) -> Trainer:
    return Trainer(task, task.config.loop, Accelerator(cpu=True))


def batch_of(task: DiffusionTask | ClassifierTask, step: int) -> Batch:
    x_0 = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(step)) * 2 - 1
    batch = {"x_0": x_0, "y": torch.tensor([0, 1, 0, 1])} if isinstance(task, ClassifierTask) else {"x_0": x_0}
    return task.draw(batch, Place(0, step, 4, range(4 * step, 4 * step + 4)))


@pytest.mark.parametrize(
    "task",
    [
        DiffusionTask(config_of("uniform")),
        SuperResTask(tiny_superres(Path(), 10, timestep_sampler="uniform")),
        ClassifierTask(tiny_classifier(Path(), 10)),
    ],
    ids=lambda task: task.name,
)
def test_a_step_reads_nothing_from_the_device(task: Any) -> None:
    trainer = trainer_of(task)
    batches = [batch_of(task, step) for step in range(4)]
    trainer.train_step(batches[0])  # the optimiser makes its state
    with Reads() as reads:
        for batch in batches[1:]:
            trainer.train_step(batch)
    assert not reads.counts
    assert [sorted(values)[0] for values in trainer.fetch()] == ["gradient_norm"] * 4
    assert trainer.fetch() == []


def test_a_task_that_draws_from_losses_has_them_after_every_step() -> None:
    task = DiffusionTask(config_of("loss_second_moment"))
    trainer = trainer_of(task)
    for step in range(3):
        trainer.train_step(batch_of(task, step))
        assert task.state_dict()["counts"].sum() == 4 * (step + 1)
    assert len(trainer.fetch()) == 3


def test_a_bad_step_changes_neither_weights_nor_averages_nor_the_optimiser() -> None:
    task = Bad(config_of("uniform"))
    trainer = trainer_of(task)
    trainer.train_step(batch_of(task, 0))
    before = copied(trainer)
    task.is_bad = True
    trainer.train_step(batch_of(task, 1))
    assert all(torch.equal(a, b) for a, b in zip(copied(trainer), before, strict=True))
    task.is_bad = False
    trainer.train_step(batch_of(task, 2))
    assert any(not torch.equal(a, b) for a, b in zip(copied(trainer), before, strict=True))
    assert [len(values) > 0 for values in trainer.fetch()] == [True, False, True]
    assert trainer.num_bad_steps == 0


@pytest.mark.parametrize("rate", [0.9, 0.9999])
def test_averages_move_towards_the_weights_by_their_rate(rate: float) -> None:
    config = config_of("uniform")
    task = DiffusionTask(replace(config, loop=replace(config.loop, ema_rates=(rate,))))
    trainer = trainer_of(task)
    before = [weight.detach().clone() for weight in trainer.averaged.parameters()]
    trainer.train_step(batch_of(task, 0))
    for mean, old, new in zip(trainer.averaged.parameters(), before, trainer.network.parameters(), strict=True):
        torch.testing.assert_close(mean, old.lerp(new.detach(), 1 - rate), rtol=1e-6, atol=0)


def copied(trainer: Trainer) -> list[Tensor]:
    """Weights, averages and the optimiser's moments."""
    state = trainer.state_dict()
    tensors = [*state["model"].values(), *(value for average in state["averages"] for value in average.values())]
    tensors += [value for moments in state["optimizer"]["state"].values() for value in moments.values()]
    return [value.detach().clone() for value in tensors]
