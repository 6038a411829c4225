"""The state that training changes, and one step of it."""

import contextlib
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rediffuse.errors import CheckpointError, ConfigError, RediffuseError
from rediffuse.training.config import LoopConfig
from rediffuse.training.initial import Initial, copy_fitting
from rediffuse.training.randomness import DROPOUT, INITIAL_WEIGHTS, derive
from rediffuse.training.task import Batch, Task, Terms


class TrainingDiverged(RediffuseError):
    """Too many consecutive steps had no finite loss and gradient."""


class Trainer:
    """Network, averages and optimiser of one process.

    Args:
        task: the training.
        config: the settings of the loop.
        accelerator: device, precision and communication with other processes.
        initial: initial weights, used where they fit the network; None keeps the task's random initial weights.
    """

    def __init__(
        self, task: Task, config: LoopConfig, accelerator: Accelerator, initial: Initial | None = None
    ) -> None:
        self.task, self.config, self.accelerator = task, config, accelerator
        torch.manual_seed(derive(config.seed, INITIAL_WEIGHTS))
        network = task.build().to(cast(torch.device, accelerator.device)).train()
        self.transfer = None if initial is None else copy_fitting(network, initial)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        # Copied before `prepare`, which changes the network's forward.
        self.averages = [_average(network, rate) for rate in config.ema_rates]
        self.network, self.optimizer = accelerator.prepare(network, optimizer)
        self.step = 0
        self.num_bad_steps = 0

    def require_frozen(self) -> None:
        """Check that the initial model gave every weight that this training does not train.

        Raises:
            ConfigError: there is no initial model.
            CheckpointError: it lacks some of these weights; names the first.
        """
        frozen = [name for name, weight in self._plain_network.named_parameters() if not weight.requires_grad]
        if not frozen:
            return
        if self.transfer is None:
            raise ConfigError("only a part of the network is trained: --init must give the rest of its weights")
        missing = [name for name in frozen if name not in self.transfer.taken]
        if missing:
            raise CheckpointError(
                f"{self.transfer.source}: lacks {missing[0]}, one of the weights that are not trained"
            )

    @property
    def averaged(self) -> nn.Module:
        """The network to evaluate and export: the first average, or without averages the trained network itself."""
        return self.averages[0].module if self.averages else self._plain_network

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One optimiser step on this process's share of a drawn batch; returns the values to log.

        A step whose loss or gradient is not finite changes no weights.

        Raises:
            TrainingDiverged: this happened in `max_bad_steps` consecutive steps.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.step)
        # Dropout draws from torch's global generators. All other random numbers are in the batch.
        torch.manual_seed(derive(self.config.seed, DROPOUT, self.step, self.accelerator.process_index))
        self.optimizer.zero_grad()
        terms = self._backward(batch)
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.clip_norm or torch.inf)
        assert norm is not None
        self.step += 1
        if not self._apply(bool(terms["loss"].isfinite().all() and norm.isfinite())):
            return {}
        return {**self.task.observe(terms), "gradient_norm": norm.detach()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        scaler = self.accelerator.scaler
        return {
            "step": self.step,
            "model": self._plain_network.state_dict(),
            "averages": [average.state_dict() for average in self.averages],
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "task": self.task.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.step = int(state["step"])
        self._plain_network.load_state_dict(state["model"])
        for average, saved in zip(self.averages, state["averages"], strict=True):
            average.load_state_dict(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.task.load_state_dict(state["task"])

    @property
    def _plain_network(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.network)

    def _backward(self, batch: Batch) -> Terms:
        """Accumulate the gradient of the mean loss; return the terms of the whole step, of all processes in order."""
        num_samples = len(next(iter(batch.values())))
        size = self.config.microbatch or num_samples
        parts = [slice(first, first + size) for first in range(0, num_samples, size)]
        collected: list[Terms] = []
        for part in parts:
            is_last = part is parts[-1]
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.network):
                terms = self.task.loss(self.network, {name: value[part] for name, value in batch.items()})
                self.accelerator.backward(terms["loss"].sum() / num_samples)
            collected.append({name: value.detach() for name, value in terms.items()})
        # All terms are sent together as float32, which represents every timestep and label exactly.
        rows = torch.cat([torch.stack([value.float() for value in terms.values()], dim=1) for terms in collected])
        of_all_processes = cast(Tensor, self.accelerator.gather(rows)).cpu()
        return dict(zip(collected[0], of_all_processes.unbind(dim=1), strict=True))

    def _apply(self, is_finite: bool) -> bool:
        """Step the optimiser and update the averages; returns whether this was done."""
        # A gradient scaler skips overflows itself, and needs the call to lower its scale.
        if is_finite or self.accelerator.scaler is not None:
            self.optimizer.step()
        if not is_finite or self.accelerator.optimizer_step_was_skipped:
            self.num_bad_steps += 1
            if self.num_bad_steps >= self.config.max_bad_steps:
                raise TrainingDiverged(
                    f"step {self.step}: the last {self.num_bad_steps} steps had no finite loss and gradient; "
                    "the last checkpoint is from before them: start a new run from it with --init, and with a lower "
                    "learning_rate, a clip_norm or precision=bf16"
                )
            return False
        self.num_bad_steps = 0
        for average in self.averages:
            average.update_parameters(self._plain_network)
        return True


def _average(network: nn.Module, rate: float) -> AveragedModel:
    """An exponential average that starts from the initial weights, as in guided-diffusion."""
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(rate)).eval()
    # AveragedModel copies the weights at its first update; with a count of 1 it averages from the start.
    average.n_averaged.fill_(1)
    return average.requires_grad_(False)
