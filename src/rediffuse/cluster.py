"""Work on many items with the processes of a Ray cluster. Ray (the extra `ray`) is imported by `connected` only.

Ray Data starts the workers, gives each of them chunks of items, and starts a worker again that has ended, with the
chunk that it had. Ray alone would try a chunk without end whose item always ends its worker. Therefore a `_Ledger`, a
process without other work, records which chunks were begun: a chunk whose worker has ended is processed item by item,
and an item that is alone when a worker ends again is left out.
"""

import contextlib
import logging
import os
import pickle
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rediffuse.allocator import keep_freed_memory
from rediffuse.errors import ConfigError, InputError, RediffuseError

LOGGER = logging.getLogger(__name__)

S = TypeVar("S")
R = TypeVar("R")
S_contra = TypeVar("S_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

_CONNECT_SECONDS = 5
"""Seconds to wait for the answer of a cluster's address."""
_MAX_STARTS = 5
"""How often the worker of a chunk may end before it has begun an item, as while it loads the network."""


LEFT_OUT = "left out, because two processes ended while they worked on it: their memory may not suffice"
"""The reason why an item has no result."""


class Work(Protocol[S_contra, R_co]):
    """What a worker does, with its network. A `RediffuseError` ends the work of all."""

    def __call__(self, items: Sequence[S_contra], /) -> Iterable[R_co]:
        """One result per item, in order."""
        ...

    def left_out(self, item: S_contra, /) -> R_co:
        """The result of an item with which two workers have ended, for the reason `LEFT_OUT`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The workers, each of which has one core."""

    num_workers: int
    num_gpus: float
    """GPUs for each worker; a fraction for several workers on one GPU."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect this process to a Ray cluster during the block.

    Args:
        address: `auto` for the cluster to which this machine belongs, or `host:port`. None starts Ray on this machine
            for the block, unless it belongs to a cluster.

    Raises:
        ConfigError: Ray is not installed, or the address has another form.
        InputError: no cluster answers at the address.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(f"--engine ray: needs Ray (pip install 'rediffuse[ray]'): {error}") from None
    if address not in (None, "auto"):
        _check_answer(address)
    try:
        # What workers print goes to Ray's log files: the files that failed are reported by their results.
        options = {"log_to_driver": False, "logging_level": logging.ERROR}
        ray.init(address=address, include_dashboard=None if address else False, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"--address {address}: no Ray cluster could be used: {str(error).splitlines()[0]}") from None
    try:
        yield
    finally:
        ray.shutdown()


def choose_pool(num_workers: int | None, num_gpus: float | None, *, may_use_gpus: bool = True) -> Pool:
    """The workers for the connected cluster.

    Args:
        num_workers: None is as many as the cluster has room for.
        num_gpus: GPUs for each worker; None is 1 if the cluster has GPUs and they may be used, otherwise 0.
        may_use_gpus: whether the network may be on a GPU.

    Raises:
        ConfigError: a number is out of range, or no machine of the cluster has as many GPUs.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
    if num_gpus is None:
        num_gpus = 1.0 if most and may_use_gpus else 0.0
    if not 0 <= num_gpus <= most:
        raise ConfigError(f"--num-gpus-per-worker {num_gpus:g}: from 0 to {most:g} are allowed on this cluster")
    if num_gpus and not may_use_gpus:
        raise ConfigError(f"--num-gpus-per-worker {num_gpus:g}: --device cpu uses none")
    room = sum(_room(node, num_gpus) for node in nodes)
    if num_workers is None:
        num_workers = max(1, room)
    if num_workers < 1:
        raise ConfigError(f"--num-workers {num_workers}: at least 1 is needed")
    if num_workers > room:
        LOGGER.warning("the cluster has room for %d of %d workers now; the others wait", room, num_workers)
    return Pool(num_workers=num_workers, num_gpus=num_gpus)


def call(function: Callable[[], R], pool: Pool) -> R:
    """The result of a function in a process with the resources of a worker.

    Raises:
        RediffuseError: one that the function raises.
    """
    import ray

    def answer() -> R | RediffuseError:
        keep_freed_memory()
        try:
            return function()
        except RediffuseError as error:
            return error

    result: Any = ray.get(ray.remote(num_cpus=1, num_gpus=pool.num_gpus)(answer).remote())
    if isinstance(result, RediffuseError):
        raise result
    return result


def each(
    begin: Callable[[], Work[S, R]], items: Sequence[S], pool: Pool, *, chunk_size: int
) -> Generator[tuple[int, R], None, None]:
    """Process items in the workers.

    Args:
        begin: is pickled and called once in each worker, where it loads the network.
        items: what is pickled and sent to the workers.
        pool: the workers.
        chunk_size: items that a worker gets at a time. They are processed again if the worker ends.

    Yields:
        The place of an item in `items` and its result, chunk by chunk as they are done. Closing the generator stops
        the work.

    Raises:
        RediffuseError: one that a worker raises; or workers end before they begin an item.
    """
    import ray
    import ray.data
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if not items:
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    ledger = ray.remote(_Ledger).options(num_cpus=0, scheduling_strategy=here).remote()
    chunks = [
        {"chunk": pickle.dumps((first, items[first : first + chunk_size]))}
        for first in range(0, len(items), chunk_size)
    ]
    replies = ray.data.from_items(chunks, override_num_blocks=len(chunks)).map_batches(
        _Worker,
        fn_constructor_args=(begin, ledger, str(Path.cwd())),
        batch_size=None,  # one block, so one chunk
        compute=ray.data.ActorPoolStrategy(size=min(pool.num_workers, len(chunks))),
        num_cpus=1,
        num_gpus=pool.num_gpus,
    )
    num_ended = 0
    for batch in replies.iter_batches(batch_size=None, prefetch_batches=0):
        for content in batch["reply"]:
            reply = pickle.loads(content)
            if isinstance(reply, RediffuseError):
                raise reply
            if reply.num_ended:
                num_ended += reply.num_ended
                LOGGER.warning("a worker ended: its files are processed again (%d times so far)", num_ended)
            yield from enumerate(reply.results, start=reply.first)


@dataclass(frozen=True)
class _Reply:
    """The results of a chunk."""

    first: int
    results: list[Any]
    num_ended: int
    """How many workers ended with this chunk."""


class _Worker:
    """A process of the pool, which Ray starts again after it has ended."""

    def __init__(self, begin: Callable[[], Work[Any, Any]], ledger: Any, folder: str) -> None:
        with contextlib.suppress(OSError):  # it may be missing on another machine, where only absolute paths work
            os.chdir(folder)
        keep_freed_memory()
        self._begin = begin
        self._ledger = ledger
        self._work: Work[Any, Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        replies = [self._reply(*pickle.loads(content)) for content in batch["chunk"]]
        return {"reply": [pickle.dumps(reply) for reply in replies]}

    def _reply(self, first: int, items: Sequence[Any]) -> "_Reply | RediffuseError":
        try:
            num_ended, left_out, is_hopeless = self._tell("begin", first)
            if is_hopeless:
                raise ConfigError("the workers end before they begin a file: their memory may not suffice")
            if self._work is None:
                self._work = self._begin()
            results = self._one_by_one(first, items, left_out) if num_ended else list(self._work(items))
        except RediffuseError as error:
            return error
        self._tell("end", first)
        return _Reply(first, results, num_ended)

    def _one_by_one(self, first: int, items: Sequence[Any], left_out: frozenset[int]) -> list[Any]:
        assert self._work is not None
        results = []
        for place, item in enumerate(items):
            if place in left_out:
                results.append(self._work.left_out(item))
            else:
                self._tell("begin_item", first, place)
                results += self._work([item])
        return results

    def _tell(self, method: str, *args: int) -> Any:
        import ray

        return ray.get(getattr(self._ledger, method).remote(*args))


class _Ledger:
    """Which chunks the workers have begun; it has a process of its own, since any worker may end."""

    def __init__(self) -> None:
        self._num_begun: Counter[int] = Counter()
        self._num_idle: Counter[int] = Counter()
        """How often a worker ended with a chunk before it had begun an item alone."""
        self._alone: dict[int, int] = {}
        """The item of a chunk that is processed alone."""
        self._left_out: dict[int, set[int]] = {}

    def begin(self, chunk: int) -> tuple[int, frozenset[int], bool]:
        """How many workers have ended with a chunk, its items that are left out, and whether to give up."""
        num_ended = self._num_begun[chunk]
        self._num_begun[chunk] += 1
        if chunk in self._alone:
            self._left_out.setdefault(chunk, set()).add(self._alone.pop(chunk))
        elif num_ended:
            self._num_idle[chunk] += 1
        return num_ended, frozenset(self._left_out.get(chunk, ())), self._num_idle[chunk] >= _MAX_STARTS

    def begin_item(self, chunk: int, place: int) -> None:
        """Say which item of a chunk a worker processes now, alone."""
        self._alone[chunk] = place

    def end(self, chunk: int) -> None:
        """Say that a chunk is done."""
        for record in (self._num_begun, self._num_idle, self._alone, self._left_out):
            record.pop(chunk, None)


def _check_answer(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ConfigError(
            f"--address {address}: auto or HOST:PORT is needed; run the command on a machine of the cluster"
        )
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers there: {error}") from None


def _room(node: dict[str, float], num_gpus: float) -> int:
    """How many workers fit on a machine."""
    cores = int(node.get("CPU", 0))
    return min(cores, int(node.get("GPU", 0) / num_gpus)) if num_gpus else cores
