"""guided-diffusion's training of diffusion models with its old names.

`rediffuse.training` has the loop for new programs. This one has the methods that old programs override, draws random
numbers from the global generators that they seed, and takes data from their iterators. It shares stop requests and the
test for divergence with `rediffuse.training`. Four things differ from the original: the same command in the same log
folder continues a stopped training, unless it names a `resume_checkpoint`; Ctrl-C and SIGTERM write a checkpoint first;
several processes can train without GPUs; and microbatches do not change the size of the gradient.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from rediffuse.compat.guided_diffusion import dist_util, logger
from rediffuse.compat.guided_diffusion.fp16_util import MixedPrecisionTrainer
from rediffuse.compat.guided_diffusion.nn import update_ema
from rediffuse.compat.guided_diffusion.resample import LossAwareSampler, ScheduleSampler, UniformSampler
from rediffuse.compat.stopping import requested_anywhere
from rediffuse.errors import CheckpointError, ConfigError
from rediffuse.models.checkpoints import load_into, write_pickle
from rediffuse.training.interrupt import stop_requests

INITIAL_LOG_LOSS_SCALE = 20.0


class TrainLoop:
    """A training that `run_loop` runs. Call `dist_util.setup_dist` and `logger.configure` before.

    Args:
        model: on its device.
        diffusion: the process, with a `training_losses`.
        data: yields batches (N, C, H, W) and their conditioning, tensors by name.
        batch_size: images per step and process.
        microbatch: images per forward pass; 0 or less for the whole batch.
        lr: learning rate.
        ema_rate: rate of the average of the weights, or several rates separated by commas.
        log_interval: steps between two rows of the log.
        save_interval: steps between two checkpoints.
        resume_checkpoint: a `modelNNNNNN.pt` in one folder with its averages and optimiser, or initial weights; if
            empty, the newest checkpoint in the log folder, if there is one.
        use_fp16: see `MixedPrecisionTrainer`.
        fp16_scale_growth: see `MixedPrecisionTrainer`.
        schedule_sampler: draws the timesteps; by default all with equal probability.
        weight_decay: AdamW's.
        lr_anneal_steps: steps over which the learning rate falls to 0, and after which the training ends. With 0 the
            training runs until it is stopped, as in the original.
    """

    def __init__(
        self,
        *,
        model: Any,
        diffusion: Any,
        data: Iterator[tuple[Tensor, dict[str, Tensor]]],
        batch_size: int,
        microbatch: int,
        lr: float,
        ema_rate: float | str,
        log_interval: int,
        save_interval: int,
        resume_checkpoint: str,
        use_fp16: bool = False,
        fp16_scale_growth: float = 1e-3,
        schedule_sampler: ScheduleSampler | None = None,
        weight_decay: float = 0.0,
        lr_anneal_steps: int = 0,
    ) -> None:
        self.model, self.diffusion, self.data = model, diffusion, data
        self.batch_size = batch_size
        self.microbatch = microbatch if microbatch > 0 else batch_size
        self.lr = lr
        self.ema_rate = [float(rate) for rate in str(ema_rate).split(",")]
        self.log_interval, self.save_interval = log_interval, save_interval
        self.resume_checkpoint = resume_checkpoint
        self.use_fp16, self.fp16_scale_growth = use_fp16, fp16_scale_growth
        self.schedule_sampler = schedule_sampler or UniformSampler(diffusion)
        self.weight_decay, self.lr_anneal_steps = weight_decay, lr_anneal_steps
        self.step = self.resume_step = 0
        self.global_batch = batch_size * dist.get_world_size()

        self._load_and_sync_parameters()
        self.mp_trainer = MixedPrecisionTrainer(
            model=self.model, use_fp16=use_fp16, fp16_scale_growth=fp16_scale_growth
        )
        self.opt = AdamW(self.mp_trainer.master_params, lr=lr, weight_decay=weight_decay)
        if self.resume_step:
            self._load_optimizer_state()
            self.ema_params = [self._load_ema_parameters(rate) for rate in self.ema_rate]
        else:
            self.ema_params = [copy.deepcopy(self.mp_trainer.master_params) for _ in self.ema_rate]
        self.use_ddp = dist.get_world_size() > 1
        self.ddp_model: nn.Module = DistributedDataParallel(self.model) if self.use_ddp else self.model

    def _load_and_sync_parameters(self) -> None:
        checkpoint = self._main_checkpoint()
        if checkpoint:
            self.resume_step = parse_resume_step_from_filename(checkpoint)
            logger.log(f"loading the model from {checkpoint}, step {self.resume_step}")
            state = dist_util.load_state_dict(checkpoint, map_location=dist_util.dev())
            found = "" if self.resume_checkpoint else ", the newest in the log folder (OPENAI_LOGDIR)"
            load_into(self.model, state, f"{checkpoint}{found}")
            newest = find_resume_checkpoint()
            if newest and not Path(newest).samefile(checkpoint):
                logger.warn(f"not from {newest}, the newest in the log folder, since resume_checkpoint is given")
        dist_util.sync_params(self.model.parameters())

    def _load_ema_parameters(self, rate: float) -> list[Any]:
        checkpoint = find_ema_checkpoint(self._main_checkpoint(), self.resume_step, rate)
        if checkpoint is None:
            logger.warn(f"there is no average of rate {rate} in the model's folder: it starts from the model's weights")
            return copy.deepcopy(self.mp_trainer.master_params)
        logger.log(f"loading an average from {checkpoint}")
        state = dist_util.load_state_dict(checkpoint, map_location=dist_util.dev())
        params = self.mp_trainer.state_dict_to_master_params(state)
        dist_util.sync_params(params)
        return params

    def _load_optimizer_state(self) -> None:
        checkpoint = Path(self._main_checkpoint()).with_name(f"opt{self.resume_step:06d}.pt")
        if not checkpoint.exists():
            logger.warn(f"{checkpoint} does not exist: the optimiser starts with a new state")
            return
        logger.log(f"loading the optimiser from {checkpoint}")
        state = dist_util.load_state_dict(str(checkpoint), map_location=dist_util.dev())
        try:
            self.opt.load_state_dict(state)
        except ValueError as error:  # for example of a training in float16, which has two flat parameters
            raise CheckpointError(f"{checkpoint}: does not fit this training's optimiser: {error}") from None

    def _main_checkpoint(self) -> str:
        return self.resume_checkpoint or find_resume_checkpoint() or ""

    def run_loop(self) -> None:
        """Train until `lr_anneal_steps`.

        Raises:
            TrainingDiverged: many consecutive steps had no finite gradient.
            SystemExit: Ctrl-C or SIGTERM stopped the training; a checkpoint was written.
        """
        if not self.lr_anneal_steps:
            logger.log("lr_anneal_steps is 0: runs until it is stopped; Ctrl-C and SIGTERM write a checkpoint first")
        elif self.resume_step >= self.lr_anneal_steps:
            logger.log(f"nothing is left to do: {self._main_checkpoint()}, lr_anneal_steps={self.lr_anneal_steps}")
        self.mp_trainer.saves_when_stopped = False  # the loop saves the averages too
        with stop_requests() as stop:
            while not self.lr_anneal_steps or self.step + self.resume_step < self.lr_anneal_steps:
                batch, cond = next(self.data)
                self.run_step(batch, cond)
                if self.step % self.log_interval == 0:
                    logger.dumpkvs()
                stopped_by = requested_anywhere(stop)
                if stopped_by or self.step % self.save_interval == 0:
                    self.save()
                if stopped_by:
                    logger.log(f"stopped by a signal, saved step {self.step + self.resume_step}")
                    raise SystemExit(128 + stopped_by)
                self.step += 1
        if self.step and (self.step - 1) % self.save_interval != 0:
            self.save()

    def run_step(self, batch: Tensor, cond: Mapping[str, Tensor]) -> None:
        """One step: gradients, optimiser, averages, learning rate and log."""
        self.forward_backward(batch, cond)
        if self.mp_trainer.optimize(self.opt):
            self._update_ema()
        self._anneal_lr()
        self.log_step()

    def forward_backward(self, batch: Tensor, cond: Mapping[str, Tensor]) -> None:
        """Compute the gradients of a batch."""
        self.mp_trainer.zero_grad()
        device = dist_util.dev()
        for first in range(0, len(batch), self.microbatch):
            part = slice(first, first + self.microbatch)
            micro = batch[part].to(device)
            micro_cond = {name: value[part].to(device) for name, value in cond.items()}
            t, weights = self.schedule_sampler.sample(len(micro), device)
            with self._synchronised(is_last=part.stop >= len(batch)):
                losses = self.diffusion.training_losses(self.ddp_model, micro, t, model_kwargs=micro_cond)
                if isinstance(self.schedule_sampler, LossAwareSampler):
                    self.schedule_sampler.update_with_local_losses(t, losses["loss"].detach())
                log_loss_dict(self.diffusion, t, {name: value * weights for name, value in losses.items()})
                self.mp_trainer.backward((losses["loss"] * weights).sum() / len(batch))

    def _synchronised(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """A context in which gradients are exchanged between processes only for the last part of a batch."""
        if is_last or not isinstance(self.ddp_model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.ddp_model.no_sync()

    def _update_ema(self) -> None:
        for rate, params in zip(self.ema_rate, self.ema_params, strict=True):
            update_ema(params, self.mp_trainer.master_params, rate=rate)

    def _anneal_lr(self) -> None:
        """Set the learning rate of the next step from the number of this one, as in the original."""
        if not self.lr_anneal_steps:
            return
        for group in self.opt.param_groups:
            group["lr"] = self.lr * (1 - (self.step + self.resume_step) / self.lr_anneal_steps)

    def log_step(self) -> None:
        """Record the number of this step, and the number of images so far."""
        step = self.step + self.resume_step
        logger.logkv("step", step)
        logger.logkv("samples", (step + 1) * self.global_batch)

    def save(self) -> None:
        """Write the model, its averages and the optimiser to files with the number of this step.

        Raises:
            StorageError: a file could not be written.
        """
        if dist.get_rank() == 0:
            folder, step = Path(get_blob_logdir()), f"{self.step + self.resume_step:06d}"
            averages = {
                f"ema_{rate}_{step}.pt": params for rate, params in zip(self.ema_rate, self.ema_params, strict=True)
            }
            logger.log(f"saving step {step}")
            # The model is written last, so that its file exists only if the others do.
            write_pickle(folder / f"opt{step}.pt", self.opt.state_dict())
            for name, params in (averages | {f"model{step}.pt": self.mp_trainer.master_params}).items():
                write_pickle(folder / name, self.mp_trainer.master_params_to_state_dict(params))
        dist.barrier()


def parse_resume_step_from_filename(filename: str) -> int:
    """The number in `path/to/modelNNNNNN.pt`; 0 for weights of another name, from which a new training starts."""
    number = Path(filename).name.rpartition("model")[2].partition(".")[0]
    return int(number) if "model" in Path(filename).name and number.isdecimal() else 0


def get_blob_logdir() -> str:
    """The folder of checkpoints, which is that of the log. Raises ConfigError if none is configured."""
    folder = logger.get_dir()
    if folder is None:
        raise ConfigError("the training has no folder: call logger.configure before it")
    return folder


def find_resume_checkpoint() -> str | None:
    """The `modelNNNNNN.pt` with the most steps in the folder of checkpoints; None if there is none."""
    models = [path for path in Path(get_blob_logdir()).glob("model*.pt") if path.stem.removeprefix("model").isdecimal()]
    return str(max(models, key=lambda path: parse_resume_step_from_filename(path.name))) if models else None


def find_ema_checkpoint(main_checkpoint: str, step: int, rate: float) -> str | None:
    """The file of the average of this rate in the folder of a model; None if there is none."""
    path = Path(main_checkpoint).with_name(f"ema_{rate}_{step:06d}.pt")
    return str(path) if main_checkpoint and path.exists() else None


def log_loss_dict(diffusion: Any, ts: Tensor, losses: Mapping[str, Tensor]) -> None:
    """Record the mean of every term (N,), and its means over each quarter of the timesteps (N,)."""
    quartiles = (4 * ts // diffusion.num_timesteps).tolist()
    for name, values in losses.items():
        logger.logkv_mean(name, values.mean().item())
        for quartile, value in zip(quartiles, values.tolist(), strict=True):
            logger.logkv_mean(f"{name}_q{quartile}", value)
