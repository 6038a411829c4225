"""The training loop of diffusion models, classifiers, upscalers and detectors (see `task.Task`).

The state after a step depends only on the config and the data: a run that was killed and resumed, a run in microbatches
and a run on several processes compute the same as one uninterrupted process (see `randomness`).
"""

import contextlib
import importlib.util
import logging
import signal
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.distributed import DistError
from torch.utils.data import DataLoader, Dataset

from rediffuse.errors import CheckpointError, ConfigError, RediffuseError, shown
from rediffuse.files import claim
from rediffuse.models.checkpoints import require_finite
from rediffuse.progress import Progress, unobserved
from rediffuse.records import dump
from rediffuse.threads import thread_pool
from rediffuse.training import checkpoints
from rediffuse.training.config import LoopConfig
from rediffuse.training.initial import read_initial
from rediffuse.training.interrupt import StopRequest, ignore_stop_signals, stop_requests
from rediffuse.training.randomness import Place
from rediffuse.training.run_folder import RunFolder
from rediffuse.training.task import Batch, Data, Task
from rediffuse.training.trainer import Trainer
from rediffuse.transfer import OnHost

LOGGER = logging.getLogger(__name__)

BATCHES_AHEAD = 2
"""Batches that a thread reads, and draws random numbers for, while steps before them are computed."""


class ProcessLost(RediffuseError):
    """Another process of the training has ended."""


@dataclass(frozen=True)
class Outcome:
    """The result of a call of `train`."""

    step: int
    stopped_by: signal.Signals | None = None
    """The signal that ended the run before its last step; a checkpoint was written."""


def train(
    task: Task,
    config: LoopConfig,
    folder: Path,
    *,
    command: str = "",
    init: str | None = None,
    progress: Progress = unobserved,
) -> Outcome:
    """Train until `config.num_steps`, from the newest checkpoint in `folder` if there is one.

    Args:
        task: the training.
        config: the settings of the loop.
        folder: the run folder (see `RunFolder`): a new or empty folder, or that of the same run.
        command: the user's command line, for the record.
        init: a model from which the run takes all weights that fit (see `read_initial`). It is read when a run starts;
            a resumed run does not need it.
        progress: called with the number of images that are read, then with the number of steps that are done and the
            last logged loss; only on the first process of each machine.

    Raises:
        ConfigError: the folder holds a run with another config or another init, or the number of processes does not
            divide the batch size.
        InputError, CheckpointError, FetchError: `init` cannot be read, or none of its tensors fits, or it lacks some
            that the task does not train.
        TrainingDiverged: `max_bad_steps` consecutive steps had no finite loss and gradient; the last checkpoint is
            from before them.
        StorageError: another process is writing to the folder, or a checkpoint could not be written.
        ProcessLost: another process of the training has ended.
    """
    run_folder = RunFolder(folder)
    accelerator = _accelerator(config, folder)
    try:
        claimed = claim(folder) if accelerator.is_main_process else contextlib.nullcontext()
        with stop_requests() as stop, claimed:
            shown = progress if accelerator.is_local_main_process else unobserved
            return _Run(task, config, run_folder, accelerator, stop, init, shown).run(command)
    except RuntimeError as error:
        # Gloo's errors have no class of their own.
        if accelerator.num_processes > 1 and (isinstance(error, DistError) or "gloo" in str(error)):
            raise ProcessLost(
                "another process of this training has ended, and has printed why; the same command continues from the "
                "last checkpoint"
            ) from error
        raise
    finally:
        accelerator.end_training()
        # Otherwise a second training in this process would use the precision and device of the first.
        AcceleratorState._reset_state(reset_partial_state=True)


class _Run:
    """One call of `train`: the trainer with its data, log, checkpoints and sample grids."""

    def __init__(
        self,
        task: Task,
        config: LoopConfig,
        folder: RunFolder,
        accelerator: Accelerator,
        stop: StopRequest,
        init: str | None,
        progress: Progress,
    ) -> None:
        if config.batch_size % accelerator.num_processes:
            raise ConfigError(
                f"batch_size={config.batch_size}: a multiple of the {accelerator.num_processes} processes is needed"
            )
        self.task, self.config, self.folder, self.accelerator, self.stop = task, config, folder, accelerator, stop
        self.progress = progress
        self.votes: OnHost | None = None
        self.owes_evaluation = False
        self.data = task.data(progress, folder.index)
        self.record = {
            "task": task.name,
            "fingerprint": self.data.fingerprint,
            **task.describe(),
            "loop": dump(config),
        }
        folder.check(self.record)
        self.resumed_from = checkpoints.newest(folder.checkpoints)
        if self.resumed_from is not None:
            folder.check_init(init)
        initial = read_initial(init) if init is not None and self.resumed_from is None else None
        self.trainer = Trainer(task, config, accelerator, initial)
        if self.resumed_from is None:
            self.trainer.require_frozen()

    def run(self, command: str) -> Outcome:
        self._resume()
        trainer, config = self.trainer, self.config
        if self.accelerator.is_main_process:
            for reason in self.data.skipped:
                LOGGER.warning("skipped: %s", reason)
            self.folder.begin(self.record, {"step": trainer.step, "command": command, "skipped": self.data.skipped})
            self.data.write_index(self.folder.index)
            if self.resumed_from is None:
                self._note_init()
            self.accelerator.init_trackers("tensorboard")
        if self.owes_evaluation:
            self._evaluate()
            self._save(owes_evaluation=False)
        means, owes_checkpoint, note = _RunningMeans(), False, ""
        self.progress("training", trainer.step, config.num_steps)
        with contextlib.closing(self._batches()) as batches:
            for batch in batches:
                trainer.train_step(batch)
                stopped = self._stop_requested()
                owes_checkpoint = owes_checkpoint or self._is_due(config.save_every)
                is_logged = self._is_due(config.log_every)
                if is_logged or stopped or owes_checkpoint:
                    for logged in trainer.fetch():
                        means.add(logged)
                if is_logged:
                    self._log(values := means.pop(config.batch_size))
                    note = f"loss {values['loss']:.4f}" if "loss" in values else "no finite loss"
                self.progress("training", trainer.step, config.num_steps, note)
                # Not during consecutive bad steps: the new checkpoints would replace better ones from before.
                is_good = not trainer.num_bad_steps or trainer.step == config.num_steps
                is_evaluated = self._is_due(config.evaluate_every)
                if is_evaluated and not stopped:
                    self._evaluate()  # before the checkpoint, so that it is not left out after a kill between the two
                if stopped or (owes_checkpoint and is_good):
                    self._save(owes_evaluation=is_evaluated and stopped)
                    owes_checkpoint = False
                if stopped:
                    return Outcome(trainer.step, self.stop.received or signal.SIGTERM)
        if self.accelerator.is_main_process:
            self._export()  # also without a step: an earlier call may have been killed while it wrote the model
        return Outcome(trainer.step)

    def _batches(self) -> Generator[Batch]:
        """The remaining batches: this process's share of each, after `Task.draw`, on the device."""
        config, accelerator = self.config, self.accelerator
        share = config.batch_size // accelerator.num_processes
        offset = share * accelerator.process_index
        steps = range(self.trainer.step, config.num_steps)
        firsts = [step * config.batch_size + offset for step in steps]
        shares = [range(first, first + share) for first in firsts]
        device, read = cast(torch.device, accelerator.device), _load(self.data, shares, config.num_workers)

        def drawn(batches: Iterator[Batch]) -> Iterator[Batch]:
            for step, positions, batch in zip(steps, shares, batches, strict=True):
                yield self.task.draw(batch, Place(config.seed, step, config.batch_size, positions))

        waits = self.task.draws_from_losses
        with contextlib.closing(_ahead(read if waits else _pinned(drawn(read), device))) as batches:
            for batch in drawn(batches) if waits else batches:
                yield {name: value.to(device, non_blocking=True) for name, value in batch.items()}

    def _resume(self) -> None:
        if self.resumed_from is not None:
            state = checkpoints.read(self.resumed_from)
            try:
                self.trainer.load_state_dict(state)
            except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                raise CheckpointError(
                    f"{self.resumed_from}: is not the complete state of this run ({shown(error)}); "
                    "remove it to resume from the checkpoint before it"
                ) from None
            for weights in (state["model"], *state["averages"]):
                require_finite(weights, self.resumed_from)
            LOGGER.info("continues after step %d: %s", self.trainer.step, self.resumed_from)
            self.owes_evaluation = "owes_evaluation" in state
        if self.trainer.step > self.config.num_steps:
            given = f"num_steps={self.config.num_steps}"
            raise ConfigError(f"{given}: {self.resumed_from} already has {self.trainer.step} steps")

    def _note_init(self) -> None:
        transfer = self.trainer.transfer
        self.folder.note_init(None if transfer is None else dump(transfer))
        if transfer is not None:
            LOGGER.info("%s", transfer)

    def _save(self, *, owes_evaluation: bool) -> None:
        if self.accelerator.is_main_process:
            state = {**self.trainer.state_dict(), "config": self._description()}
            if owes_evaluation:  # a stop must not wait for it
                state["owes_evaluation"] = True
            checkpoints.write(self.folder.checkpoints, self.trainer.step, state, self.config.keep)
        self.accelerator.wait_for_everyone()

    def _log(self, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self.folder.log(self.trainer.step, values)
            self.accelerator.log(values, step=self.trainer.step)
            LOGGER.debug("step %d: %s", self.trainer.step, _listed(values))

    def _evaluate(self) -> None:
        if self.accelerator.is_main_process:
            network = self.trainer.averaged
            was_training = network.training  # without averages `network` is the trained network itself
            figures = self.task.evaluate(network.eval(), self.folder.samples, self.trainer.step)
            network.train(was_training)
            if figures:
                self._log(figures)
                LOGGER.info("step %d: %s", self.trainer.step, _listed(figures))
        self.accelerator.wait_for_everyone()

    def _export(self) -> None:
        training = {**self._description(), "steps": self.trainer.step, "ema_rates": self.config.ema_rates[:1]}
        if self.folder.init is not None:
            training["init"] = self.folder.init
        self.task.export(self.trainer.averaged, self.folder.model, training)

    def _description(self) -> dict[str, Any]:
        """The record of the training that is saved with the model, and the names of the classes in order."""
        return {**self.record, "classes": list(self.data.classes)}

    def _stop_requested(self) -> bool:
        """Whether any process received a stop request; then all processes stop after the same step."""
        asked = self.stop.received is not None
        if self.accelerator.num_processes == 1:
            return asked
        # The votes after the step before: reading those of this step would wait for its end.
        before, votes = self.votes, torch.full((), float(asked), device=self.accelerator.device)
        self.votes = OnHost(cast(torch.Tensor, self.accelerator.reduce(votes, "sum")))
        return before is not None and bool(before.read() > 0)

    def _is_due(self, every: int) -> bool:
        return self.trainer.step % every == 0 or self.trainer.step == self.config.num_steps


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


class _RunningMeans:
    """Means of the logged values over the steps since the last log line."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._steps = 0
        self._since = perf_counter()

    def add(self, values: dict[str, torch.Tensor]) -> None:
        self._steps += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.sum())
            self._counts[name] = self._counts.get(name, 0) + value.numel()

    def pop(self, batch_size: int) -> dict[str, float]:
        """Return the means and start again."""
        means = {name: total / self._counts[name] for name, total in self._sums.items() if self._counts[name]}
        means["images_per_second"] = self._steps * batch_size / (perf_counter() - self._since)
        self.__init__()
        return means


def _ahead(batches: Iterator[Batch]) -> Generator[Batch]:
    """Iterate in a thread, `BATCHES_AHEAD` batches in advance."""
    pool = thread_pool(1)
    try:
        begun = deque(pool.submit(next, batches, None) for _ in range(BATCHES_AHEAD))
        while (batch := begun.popleft().result()) is not None:
            begun.append(pool.submit(next, batches, None))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


def _pinned(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches in memory from which a GPU can copy while it computes."""
    for batch in batches:
        yield {name: value.pin_memory() for name, value in batch.items()} if device.type == "cuda" else batch


def _load(data: Data, shares: list[range], num_workers: int) -> Iterator[Batch]:
    """The batch at each of the positions, read by `num_workers` processes; 0 reads in this process."""
    if num_workers == 0:
        return (data[positions] for positions in shares)
    loader = DataLoader(
        cast(Dataset[Batch], data),
        batch_size=None,  # the data return complete batches
        sampler=shares,  # type: ignore[arg-type]  # ranges are what indexes them
        num_workers=num_workers,
        worker_init_fn=ignore_stop_signals,
    )
    return iter(loader)


def _accelerator(config: LoopConfig, folder: Path) -> Accelerator:
    on_cpu = config.device == "cpu" or not torch.accelerator.is_available()
    if config.precision == "fp16" and on_cpu:
        raise ConfigError("precision=fp16: needs a GPU; bf16 and fp32 run on a CPU")
    return Accelerator(
        cpu=config.device == "cpu",
        mixed_precision="no" if config.precision == "fp32" else config.precision,
        log_with="tensorboard" if importlib.util.find_spec("tensorboard") else None,
        project_dir=folder,
    )
