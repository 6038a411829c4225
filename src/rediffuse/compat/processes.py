"""Exchange Python objects between processes: mpi4py's lower-case methods, on `torch.distributed`."""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

from torch import distributed as dist

from rediffuse.compat.launch import current

Reduction = Callable[[Any, Any], Any]


class Processes:
    """All processes of the program. They can communicate after `dist_util.setup_dist`."""

    @property
    def rank(self) -> int:
        return dist.get_rank() if _connected() else current().rank

    @property
    def size(self) -> int:
        return dist.get_world_size() if _connected() else current().num_processes

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return self.size

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """The object that the process `root` passed."""
        if self.size == 1:
            return obj
        objects = [obj]
        dist.broadcast_object_list(objects, src=root)
        return objects[0]

    def allgather(self, sendobj: Any) -> list[Any]:
        """The objects of all processes in order."""
        if self.size == 1:
            return [sendobj]
        objects = [None] * self.size
        dist.all_gather_object(objects, sendobj)
        return objects

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        """As `allgather`, for the process `root`; None for the others."""
        objects = self.allgather(sendobj)
        return objects if self.rank == root else None

    def scatter(self, sendobj: list[Any] | None, root: int = 0) -> Any:
        """The entry of the root's list whose index is this process's rank."""
        objects = self.bcast(sendobj, root)
        assert objects is not None
        assert len(objects) == self.size
        return objects[self.rank]

    def allreduce(self, sendobj: Any, op: Reduction = operator.add) -> Any:
        """All objects in order, combined with `op`."""
        return reduce(op, self.allgather(sendobj))

    def reduce(self, sendobj: Any, op: Reduction = operator.add, root: int = 0) -> Any:
        """As `allreduce`, for the process `root`; None for the others."""
        total = self.allreduce(sendobj, op)
        return total if self.rank == root else None

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    Barrier = barrier


WORLD = Processes()


def _connected() -> bool:
    return dist.is_available() and dist.is_initialized()
