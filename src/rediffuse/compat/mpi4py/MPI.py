"""The communicator of all processes, and the reductions that the programs use."""

import operator

from rediffuse.compat.processes import WORLD as COMM_WORLD
from rediffuse.compat.processes import Processes as Comm

__all__ = ["COMM_WORLD", "MAX", "MIN", "PROD", "SUM", "Comm"]

SUM, PROD, MAX, MIN = operator.add, operator.mul, max, min
