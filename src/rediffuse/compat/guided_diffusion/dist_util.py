"""guided-diffusion's processes and devices with their old names, on `torch.distributed`, without MPI and also on CPUs.

A single process is a group of one, so that a program's own calls of `torch.distributed` work. The number of processes
comes from torchrun's variables, which `python -m rediffuse.compat` reads (see `rediffuse.compat.launch`).
"""

import atexit
from collections.abc import Iterable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from rediffuse.compat.launch import current
from rediffuse.errors import InputError
from rediffuse.models.checkpoints import read_pickle, read_state_dict

GPUS_PER_NODE = 8
SETUP_RETRY_COUNT = 3


def setup_dist(devices: str = "") -> None:
    """Connect to the other processes, or form a group of one; uses NCCL with GPUs, otherwise Gloo.

    On a CPU it also makes `DistributedDataParallel` ignore the device arguments of programs, which raise an error
    otherwise.

    Args:
        devices: not used. DIRE's programs pass CUDA_VISIBLE_DEVICES, which CUDA reads itself. Each process uses the GPU
            whose number is its local rank.
    """
    if dist.is_initialized():
        return
    launch, has_gpu = current(), torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(launch.local_rank % torch.cuda.device_count())
    else:
        _let_wrappers_take_a_cpu()
    backend = "nccl" if has_gpu else "gloo"
    if launch.num_processes == 1:
        store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]  (documented, but not in the stub)
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    else:
        dist.init_process_group(
            backend, init_method="env://", rank=launch.rank, world_size=launch.num_processes
        )  # torch reads the address of the first process from torchrun's variables
    atexit.register(_leave)


def dev() -> torch.device:
    """This process's GPU, or the CPU if there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class LoadedState(dict[str, Any]):
    """A state_dict that remembers its file, for errors."""

    def __init__(self, state: Mapping[str, Any], path: str) -> None:
        super().__init__(state)
        self.path = path


def load_state_dict(path: str, **kwargs: Any) -> Any:
    """Load a file of `torch.save`, or the tensors of a `.safetensors` file; no code is run.

    Args:
        path: the file.
        kwargs: only `map_location` is used: the device of the tensors, by default the CPU.

    Raises:
        InputError, CheckpointError: see `rediffuse.models.checkpoints`; also if the path is empty.
    """
    if not path:
        raise InputError("a file of weights is needed: give its path with --model_path or --classifier_path")
    file = Path(path)
    # A saved optimiser is not a state_dict of tensors, so only missing and .safetensors files use that function.
    is_pickle = file.is_file() and file.suffix != ".safetensors"
    content = _on(kwargs.get("map_location") or "cpu", read_pickle(file) if is_pickle else read_state_dict(file))
    return LoadedState(content, path) if isinstance(content, dict) else content


def sync_params(params: Iterable[Tensor]) -> None:
    """Copy the values of the first process to all others, in place."""
    for parameter in params:
        dist.broadcast(parameter.detach(), 0)


@cache
def _let_wrappers_take_a_cpu() -> None:
    original = DistributedDataParallel.__init__

    @wraps(original)
    def init(
        self: DistributedDataParallel,
        module: nn.Module,
        device_ids: Any = None,
        output_device: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if all(parameter.device.type == "cpu" for parameter in module.parameters()):
            device_ids = output_device = None
        original(self, module, device_ids, output_device, *args, **kwargs)

    DistributedDataParallel.__init__ = init


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _on(device: torch.device | str, value: Any) -> Any:
    """The tensors in nested dicts, lists and tuples, on the device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return type(value)((key, _on(device, item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value)(_on(device, item) for item in value)
    return value
