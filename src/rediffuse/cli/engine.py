"""The flags that choose where a job runs: on this machine, or on a Ray cluster."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rediffuse.cli.ranks import ranks
from rediffuse.errors import ConfigError

if TYPE_CHECKING:
    from rediffuse.cluster import Pool

ENGINE = ("--engine", "--address", "--num-workers", "--num-gpus-per-worker")
"""The flags, for the groups of help."""


@dataclass(frozen=True, kw_only=True)
class EngineFlags:
    """Where a job runs."""

    engine: Literal["local", "ray"] = "local"
    """local: this process. ray: the workers of a Ray cluster, each with its own network (pip install
    'rediffuse[ray]')."""
    address: str | None = None
    """The cluster: auto for the one of this machine, or HOST:PORT; if not given, Ray is started on this machine where
    it does not run."""
    num_workers: int | None = None
    """Workers, one core each; as many as the cluster has room for if not given."""
    num_gpus_per_worker: float | None = None
    """GPUs of each worker, such as 0.5 for two workers on one GPU; 1 if not given and the cluster has GPUs."""

    def __post_init__(self) -> None:
        if self.engine == "ray":
            ranks().refuse("--engine ray", "Ray divides the files itself")
            return
        for name in ("address", "num_workers", "num_gpus_per_worker"):
            if getattr(self, name) is not None:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: is only for --engine ray")

    @contextlib.contextmanager
    def connected(self, device: str) -> "Iterator[tuple[Pool, str]]":
        """The workers of the cluster, connected to it during the block, and the device of their networks.

        Args:
            device: the flag `--device`; auto is a GPU for workers that have one, and otherwise the CPU.
        """
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else an error of every pool of Ray Data is printed
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what later versions of Ray do

        from rediffuse.cluster import choose_pool, connected

        with connected(self.address or os.environ.get("RAY_ADDRESS") or None):
            pool = choose_pool(self.num_workers, self.num_gpus_per_worker, may_use_gpus=device != "cpu")
            yield pool, ("cuda" if pool.num_gpus else "cpu") if device == "auto" else device
