"""The number of images that a job gives to the network at a time."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from rediffuse.files import write_bytes
from rediffuse.models.config import USUAL_BATCH_SIZE, BatchSize, Precision, UNetConfig, check_batch_size
from rediffuse.models.memory import peak_activation_bytes
from rediffuse.models.meta import meta_conditioning
from rediffuse.records import parse, read_json
from rediffuse.zoo.model import DiffusionModel, NetworkSettings

LOGGER = logging.getLogger(__name__)

SIZES = (4, 8, 16, 32, 64)
"""The sizes that are measured."""
SLOWER = 1.05
"""The smallest size is chosen whose time per image is at most this multiple of the shortest one."""
ROUNDS = 2
WORTH = 50
"""A measurement is made only for jobs of at least this multiple of its network calls, so it takes 2 % of their time."""
MEMORY = 0.5
"""Share of the free memory that the feature maps may take; their size is an estimate."""
RECORD = "batch_size.json"
"""The name of the file that records the size in the folder of a job's results."""


@dataclass(frozen=True, kw_only=True)
class _Record:
    batch_size: int


def choose_batch_size(
    given: BatchSize,
    model: DiffusionModel,
    settings: NetworkSettings,
    precision: Precision,
    *,
    num_images: int,
    num_calls: int,
    folder: Path | None = None,
) -> int:
    """The number of images, or windows of images, per call of the network.

    `auto` is 16 for short jobs and for pipelines of diffusers. For long jobs it is the fastest number, by a measurement
    that takes 2 % of the job. It is never more than fits in the free memory, as far as the system tells.

    Args:
        given: a number, which is returned, or `auto`.
        model: the model.
        settings: of the network's calls.
        precision: of the network's calls.
        num_images: images of the whole job, each window counted.
        num_calls: network calls per image.
        folder: the folder of the job's results, which records the number. `auto` is the recorded one, so that an
            interrupted job continues with the same results.

    Raises:
        ConfigError: `given` is below 1, or the record in the folder is not one.
        StorageError: the record cannot be written.
    """
    check_batch_size(given)
    record = None if folder is None else folder / RECORD
    if given == "auto" and record is not None and record.exists():
        return parse(_Record, read_json(record), str(record)).batch_size
    size = _fastest(model, settings, precision, num_images, num_calls) if given == "auto" else given
    record_batch_size(folder, size)
    return size


def record_batch_size(folder: Path | None, size: int) -> None:
    """Record the size in the folder of the job's results, if it has one."""
    if folder is not None:
        write_bytes(folder / RECORD, (json.dumps({"batch_size": size}) + "\n").encode())


def _fastest(
    model: DiffusionModel, settings: NetworkSettings, precision: Precision, num_images: int, num_calls: int
) -> int:
    config = model.network.config
    if not isinstance(config, UNetConfig):
        return USUAL_BATCH_SIZE
    most = _most_in_memory(model, config)
    usual = max(1, min(USUAL_BATCH_SIZE, most))
    if usual < min(USUAL_BATCH_SIZE, num_images):
        LOGGER.info("batch size %d: more images may not fit in the free memory of %s", usual, model.device)
    sizes = [size for size in SIZES if size <= min(most, num_images)]
    if not sizes or num_images * num_calls < WORTH * (ROUNDS + 1) * sum(sizes):
        return usual
    network = model.denoiser(settings, precision)
    per_image: dict[int, float] = {}
    try:
        for size in sizes:
            per_image[size] = _seconds(network, model, size) / size
    except torch.OutOfMemoryError:  # the estimate was too low; larger sizes do not fit either
        if not per_image:
            return 1
    size = min(size for size in sizes if per_image[size] <= SLOWER * min(per_image.values()))
    figures = ", ".join(f"{1000 * seconds:.3g} ms with {size}" for size, seconds in per_image.items())
    LOGGER.debug("batch size %d: an image takes %s", size, figures)
    return size


def _seconds(network: Callable[..., torch.Tensor], model: DiffusionModel, size: int) -> float:
    """The time of one call with `size` images, the shortest of some; the first is a preparation."""
    x, t = torch.zeros(size, *model.shape, device=model.device), torch.ones((), device=model.device).expand(size)
    needed = meta_conditioning(model.network, x)
    conditioning = {name: torch.zeros(one.shape, dtype=one.dtype, device=model.device) for name, one in needed.items()}
    seconds = []
    for _ in range(1 + ROUNDS):
        begin = perf_counter()
        with torch.inference_mode():
            network(x, t, **conditioning)
        if model.device.type != "cpu":
            torch.accelerator.synchronize(model.device)
        seconds.append(perf_counter() - begin)
    return min(seconds[1:])


def _most_in_memory(model: DiffusionModel, config: UNetConfig) -> int:
    """How many images probably fit in the free memory, at most the largest of `SIZES`."""
    free = _free_bytes(model.device)
    if free is None:  # the system does not tell
        return SIZES[-1]
    pixels = config.image_size**config.dims
    bound = 4 * pixels * config.model_channels * max(config.channel_mult) * 32 * (1 + config.num_res_blocks)
    if SIZES[-1] * bound < MEMORY * free:  # far from the limit: the estimate would take longer than a short job
        return SIZES[-1]
    return min(SIZES[-1], int(MEMORY * free / peak_activation_bytes(model.network, (1, *model.shape))))


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    path = Path("/proc/meminfo")
    if device.type != "cpu" or not path.exists():
        return None
    fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return 1024 * int(fields["MemAvailable"].split()[0])
