"""The state that training changes, and one step of it."""

import contextlib
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from rediffuse.errors import CheckpointError, ConfigError, RediffuseError
from rediffuse.training.config import LoopConfig
from rediffuse.training.initial import Initial, copy_fitting
from rediffuse.training.randomness import DROPOUT, INITIAL_WEIGHTS, derive
from rediffuse.training.task import Batch, Task


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
        self.averages = [AveragedModel(network).eval().requires_grad_(False) for _ in config.ema_rates]
        self.network, self.optimizer = accelerator.prepare(network, optimizer)
        self.step = 0
        self.num_bad_steps = 0
        """Consecutive steps without a finite loss and gradient, at the end of those that were fetched."""
        self._names: list[str] = []
        self._unfetched: list[tuple[Tensor, Tensor]] = []  # loss terms (N, terms); norm of the gradient, is_bad (2,)
        self._fetched: list[dict[str, Tensor]] = []

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

    def train_step(self, batch: Batch) -> None:
        """One optimiser step on this process's share of a drawn batch.

        A step whose loss or gradient is not finite changes no weights. The values to log stay on the device, so that
        the next step can begin before this one has ended; they are fetched after at most `max_bad_steps` steps, and in
        every step if the task needs them.

        Raises:
            TrainingDiverged: see `fetch`.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.step)
        # Dropout draws from torch's global generators. All other random numbers are in the batch.
        torch.manual_seed(derive(self.config.seed, DROPOUT, self.step, self.accelerator.process_index))
        self.optimizer.zero_grad()
        self._names, terms = self._backward(batch)
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.clip_norm or torch.inf)
        assert norm is not None
        self.step += 1
        is_bad = ~(terms[:, self._names.index("loss")].isfinite().all() & norm.isfinite())
        self._apply(is_bad)
        self._unfetched.append((terms, torch.stack([norm.detach(), is_bad.to(norm.dtype)])))
        if self.task.draws_from_losses or len(self._unfetched) == self.config.max_bad_steps:
            self._fetch()

    def fetch(self) -> list[dict[str, Tensor]]:
        """The values to log of every step since the last call, (N,) or one number each; none of a bad step.

        Raises:
            TrainingDiverged: `max_bad_steps` consecutive steps had no finite loss and gradient.
        """
        self._fetch()
        fetched, self._fetched = self._fetched, []
        return fetched

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
        if self.step < 0:
            raise ValueError(f"step={self.step}")
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

    def _backward(self, batch: Batch) -> tuple[list[str], Tensor]:
        """Accumulate the gradient of the mean loss.

        Returns:
            The names of the loss terms, and their values (N, terms) float32 in the whole step, of all processes in
            order. float32 represents every timestep and label exactly.
        """
        num_samples = len(next(iter(batch.values())))
        size = self.config.microbatch or num_samples
        parts = [slice(first, first + size) for first in range(0, num_samples, size)]
        names, collected = [], []
        for part in parts:
            is_last = part is parts[-1]
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.network):
                terms = self.task.loss(self.network, {name: value[part] for name, value in batch.items()})
                self.accelerator.backward(terms["loss"].sum() / num_samples)
            names = list(terms)
            collected.append(torch.stack([value.detach().float() for value in terms.values()], dim=1))
        return names, cast(Tensor, self.accelerator.gather(torch.cat(collected)))

    def _apply(self, is_bad: Tensor) -> None:
        """Step the optimiser and update the averages; a bad step changes neither.

        The device decides, as it does for a gradient scaler: torch's fused optimisers change nothing where `found_inf`
        is 1.
        """
        optimizer: Any = self.optimizer.optimizer
        optimizer.found_inf = is_bad.float()
        optimizer.step()
        del optimizer.found_inf
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.update()  # its gradients were unscaled to be clipped
        for average, rate in zip(self.averages, self.config.ema_rates, strict=True):
            _update_average(average.module, self._plain_network, rate, is_bad)

    def _fetch(self) -> None:
        """Read the values of all steps from the device, and give the task's statistics those of each."""
        if not self._unfetched:
            return
        all_terms, ends = (torch.stack(values).cpu() for values in zip(*self._unfetched, strict=True))
        first, self._unfetched = self.step - len(self._unfetched) + 1, []
        for number, (terms, (norm, is_bad)) in enumerate(zip(all_terms, ends, strict=True), first):
            if is_bad:
                self._fetched.append({})
                self.num_bad_steps += 1
                if self.num_bad_steps >= self.config.max_bad_steps:
                    raise TrainingDiverged(
                        f"step {number}: the last {self.num_bad_steps} steps had no finite loss and gradient; "
                        "the last checkpoint is from before them: start a new run from it with --init, and with a "
                        "lower learning_rate, a clip_norm or precision=bf16"
                    )
            else:
                self.num_bad_steps = 0
                values = dict(zip(self._names, terms.unbind(dim=1), strict=True))
                self._fetched.append({**self.task.observe(values), "gradient_norm": norm})


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, rate: float, is_bad: Tensor) -> None:
    """An exponential average of the weights that starts from the initial ones, as in guided-diffusion."""
    weight = (1 - rate) * (~is_bad).float()
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, weight)
    for mean, value in zip(average.buffers(), network.buffers(), strict=True):
        mean.copy_(torch.where(is_bad, mean, value))
