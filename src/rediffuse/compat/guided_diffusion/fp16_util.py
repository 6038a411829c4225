"""guided-diffusion's training in half precision with its old names, on torch's GradScaler.

The network's torso is float16; the optimiser has float32 copies of all weights, in two flat parameters as before, so
that its saved state fits old programs. Three things are new: also in float32 a step without a finite gradient changes
nothing, many such consecutive steps end the training, and a program with a training loop of its own saves its model and
optimiser when Ctrl-C or SIGTERM stops it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from rediffuse.compat.guided_diffusion import logger
from rediffuse.compat.processes import WORLD
from rediffuse.compat.stopping import requested_anywhere, requests_from_now_on
from rediffuse.errors import ConfigError
from rediffuse.models.checkpoints import write_pickle
from rediffuse.training.config import LoopConfig
from rediffuse.training.trainer import TrainingDiverged

Named = list[tuple[str, Tensor]]
Groups = list[tuple[Named, tuple[int, ...]]]
"""Groups of named parameters, with the shape of each group as one flat parameter."""

INITIAL_LOG_LOSS_SCALE = 20.0

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class MixedPrecisionTrainer:
    """The weights that an optimiser changes (`master_params`), and its steps.

    Args:
        model: with `use_fp16` its method `convert_to_fp16` is called.
        use_fp16: whether `master_params` are float32 copies, and the loss is scaled.
        fp16_scale_growth: increase of the logarithm (base 2) of the scale per step; an overflow decreases it by 1.
        initial_lg_loss_scale: the initial logarithm (base 2) of the scale.

    Raises:
        ConfigError: the scale would not grow.
    """

    def __init__(
        self,
        *,
        model: Any,
        use_fp16: bool = False,
        fp16_scale_growth: float = 1e-3,
        initial_lg_loss_scale: float = INITIAL_LOG_LOSS_SCALE,
    ) -> None:
        if use_fp16 and fp16_scale_growth <= 0:
            raise ConfigError(f"fp16_scale_growth={fp16_scale_growth}: more than 0 is needed")
        self.model = model
        self.use_fp16 = use_fp16
        self.fp16_scale_growth = fp16_scale_growth
        self.model_params: list[nn.Parameter] = list(model.parameters())
        self.master_params = self.model_params
        self.param_groups_and_shapes: Groups | None = None
        if use_fp16:
            self.param_groups_and_shapes = get_param_groups_and_shapes(model.named_parameters())
            self.master_params = make_master_params(self.param_groups_and_shapes)
            model.convert_to_fp16()
        self._scaler = GradScaler(
            self.model_params[0].device.type,
            init_scale=2.0**initial_lg_loss_scale,
            growth_factor=2.0**fp16_scale_growth if use_fp16 else 2.0,
            backoff_factor=0.5,
            growth_interval=1,
            enabled=use_fp16,
        )
        self._num_steps = self._num_bad_steps = 0
        self.saves_when_stopped = True
        """Whether `optimize` writes files and ends the program after Ctrl-C or SIGTERM; False where a loop does it."""

    @property
    def lg_loss_scale(self) -> float:
        """The logarithm (base 2) of the factor of the loss."""
        return math.log2(self._scaler.get_scale())

    def zero_grad(self) -> None:
        """Delete the gradients of the model."""
        zero_grad(self.model_params)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the scaled loss to those of the model."""
        self._scaler.scale(loss).backward()

    def optimize(self, opt: Optimizer) -> bool:
        """One step of an optimiser of `master_params`; returns whether the gradient was finite and the step was done.

        Raises:
            TrainingDiverged: many consecutive steps had no finite gradient.
            SystemExit: Ctrl-C or SIGTERM stopped a training loop of the program's own; `modelNNNNNN.pt` and
                `optNNNNNN.pt` were written to the log's folder. NNNNNN is the value `step` of the log.
        """
        stop = requests_from_now_on() if self.saves_when_stopped else None
        if self.param_groups_and_shapes is not None:
            logger.logkv_mean("lg_loss_scale", self.lg_loss_scale)
            model_grads_to_master_grads(self.param_groups_and_shapes, self.master_params)
            self._scaler.unscale_(opt)
        gradients = [parameter.grad for parameter in self.master_params if parameter.grad is not None]
        grad_norm = nn.utils.get_total_norm(gradients).item()
        is_finite = not check_overflow(grad_norm)
        if is_finite or self.use_fp16:  # the scaler skips overflows, and needs the call to lower its scale
            self._scaler.step(opt)
            self._scaler.update()
        if is_finite:
            logger.logkv_mean("grad_norm", grad_norm)
            logger.logkv_mean("param_norm", nn.utils.get_total_norm(self.master_params).item())
        if self.param_groups_and_shapes is not None:
            zero_master_grads(self.master_params)
            master_params_to_model_params(self.param_groups_and_shapes, self.master_params)
        self._count(is_finite)
        stopped_by = stop and requested_anywhere(stop)
        if stopped_by:
            self._save(opt)
            raise SystemExit(128 + stopped_by)
        return is_finite

    def master_params_to_state_dict(self, master_params: Sequence[Tensor]) -> dict[str, Tensor]:
        """The model's float32 state_dict with these weights: `master_params`, or an average of them."""
        return master_params_to_state_dict(self.model, self.param_groups_and_shapes, master_params, self.use_fp16)

    def state_dict_to_master_params(self, state_dict: Mapping[str, Tensor]) -> list[Tensor]:
        """Undo `master_params_to_state_dict`."""
        return state_dict_to_master_params(self.model, state_dict, self.use_fp16)

    def _save(self, opt: Optimizer) -> None:
        """Write the files that programs with a loop of their own, such as classifier_train, write and resume from."""
        if WORLD.rank > 0:
            return
        folder = logger.get_dir()
        if folder is None:
            raise ConfigError("stopped by a signal, nothing was saved: the program did not call logger.configure")
        step = int(logger.getkvs().get("step", self._num_steps - 1))
        model = Path(folder) / f"model{step:06d}.pt"
        write_pickle(model.with_name(f"opt{step:06d}.pt"), opt.state_dict())
        write_pickle(model, self.master_params_to_state_dict(self.master_params))
        logger.log(f"stopped by a signal, saved step {step}; --resume_checkpoint {model} continues from it")

    def _count(self, is_finite: bool) -> None:
        self._num_steps += 1
        self._num_bad_steps = 0 if is_finite else self._num_bad_steps + 1
        if is_finite:
            return
        logger.log(f"gradient not finite, step skipped{f'; lg_loss_scale={self.lg_loss_scale}' * self.use_fp16}")
        if self._num_bad_steps == LoopConfig.max_bad_steps:
            raise TrainingDiverged(
                f"the last {self._num_bad_steps} steps had no finite gradient; the files saved before are still there: "
                "resume from one of them with a lower learning rate, or without fp16"
            )


def convert_module_to_f16(l: nn.Module) -> None:  # noqa: E741 (the old name)
    """Convert a convolution to float16; other modules are not changed."""
    if isinstance(l, _CONVOLUTIONS):
        l.half()


def convert_module_to_f32(l: nn.Module) -> None:  # noqa: E741 (the old name)
    """Convert a convolution to float32; other modules are not changed."""
    if isinstance(l, _CONVOLUTIONS):
        l.float()


def get_param_groups_and_shapes(named_model_params: Iterable[tuple[str, Tensor]]) -> Groups:
    """Two groups: biases and other vectors with shape (n,), all other parameters with shape (1, n)."""
    named = list(named_model_params)
    vectors = [(name, parameter) for name, parameter in named if parameter.ndim <= 1]
    others = [(name, parameter) for name, parameter in named if parameter.ndim > 1]
    return [(vectors, (-1,)), (others, (1, -1))]


def make_master_params(param_groups_and_shapes: Groups) -> list[nn.Parameter]:
    """A flat float32 copy of each group."""
    return [nn.Parameter(_flat(group, shape)) for group, shape in param_groups_and_shapes]


def model_grads_to_master_grads(param_groups_and_shapes: Groups, master_params: Iterable[Tensor]) -> None:
    """Copy the model's gradients to its flat copies; missing gradients count as zeros."""
    for master, (group, shape) in zip(master_params, param_groups_and_shapes, strict=True):
        master.grad = _flat([(name, param_grad_or_zeros(parameter)) for name, parameter in group], shape)


def master_params_to_model_params(param_groups_and_shapes: Groups, master_params: Iterable[Tensor]) -> None:
    """Copy the values of the flat copies to the model."""
    for master, (group, _) in zip(master_params, param_groups_and_shapes, strict=True):
        for (_, parameter), values in zip(group, unflatten_master_params(group, master), strict=True):
            parameter.detach().copy_(values)


def unflatten_master_params(param_group: Named, master_param: Tensor) -> list[Tensor]:
    """Split a flat copy into tensors with the shapes of the group."""
    parts = master_param.detach().flatten().split([parameter.numel() for _, parameter in param_group])
    return [part.view(parameter.shape) for part, (_, parameter) in zip(parts, param_group, strict=True)]


def master_params_to_state_dict(
    model: nn.Module, param_groups_and_shapes: Groups | None, master_params: Sequence[Tensor], use_fp16: bool
) -> dict[str, Tensor]:
    """The model's state_dict with the values of `master_params`."""
    state = model.state_dict()
    if use_fp16:
        assert param_groups_and_shapes is not None
        for master, (group, _) in zip(master_params, param_groups_and_shapes, strict=True):
            names = [name for name, _ in group]
            state.update(zip(names, unflatten_master_params(group, master), strict=True))
    else:
        names = [name for name, _ in model.named_parameters()]
        state.update(zip(names, master_params, strict=True))
    return {name: value.detach() for name, value in state.items()}


def state_dict_to_master_params(model: nn.Module, state_dict: Mapping[str, Tensor], use_fp16: bool) -> list[Tensor]:
    """Undo `master_params_to_state_dict`."""
    named = [(name, state_dict[name]) for name, _ in model.named_parameters()]
    if use_fp16:
        return [*make_master_params(get_param_groups_and_shapes(named))]
    return [value for _, value in named]


def zero_master_grads(master_params: Iterable[Tensor]) -> None:
    """Delete the gradients of the flat copies."""
    for parameter in master_params:
        parameter.grad = None


def zero_grad(model_params: Iterable[Tensor]) -> None:
    """Set all existing gradients to zero."""
    for parameter in model_params:
        if parameter.grad is not None:
            parameter.grad = torch.zeros_like(parameter.grad)


def param_grad_or_zeros(param: Tensor) -> Tensor:
    """The gradient of a parameter; zeros if it has none."""
    return torch.zeros_like(param) if param.grad is None else param.grad.detach()


def check_overflow(value: float) -> bool:
    """Whether a number is infinite or NaN."""
    return not math.isfinite(value)


def _flat(group: Named, shape: tuple[int, ...]) -> Tensor:
    return torch.cat([value.detach().float().flatten() for _, value in group]).view(shape)
