"""Group normalisation with SiLU of feature maps with channels innermost, in C for the CPU.

torch normalises small maps several times as fast with their channels outermost, but then both copies and SiLU pass
over the map too. The C program is compiled at its first use on a machine, in about a second, and kept in the cache of
the user. Without a compiler, or on another system than Linux, torch's operations are used.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

LOGGER = logging.getLogger(__name__)

LANES = 32
"""The number of channels must be a multiple of it."""
DTYPES = (torch.float32, torch.bfloat16)
"""Number formats of feature maps."""
SMALL = 16_384
"""Maps with fewer numbers are normalised by one thread: to begin a second one takes longer."""
_OPTIONS = (
    *("-std=c11", "-O3", "-march=native", "-fPIC", "-fopenmp"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
)
_PATIENCE = 60
"""Seconds that the compiler may take."""


@cache
def load_kernel() -> Callable[..., Tensor] | None:
    """`group_norm` of this machine, which is compiled if that was not done before; None if that is not possible."""
    source = Path(__file__).with_suffix(".c").read_bytes()
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or sys.platform != "linux":
        LOGGER.debug("no C compiler: torch's normalisation is used")
        return None
    try:
        name = hashlib.sha256(b"\0".join([source, _processor(), *map(str.encode, (compiler, *_OPTIONS))])).hexdigest()
        library = _folder() / f"group_norm-{name[:16]}.so"
        if not library.exists():
            _compile(compiler, source, library)
        return _bound(ctypes.CDLL(str(library)))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        LOGGER.info("the normalisation could not be compiled, so torch's is used: %s", str(detail).strip())
        return None


def _bound(library: ctypes.CDLL) -> Callable[..., Tensor]:
    function, pointers, counts = library.group_norm, [ctypes.c_void_p] * 4, [ctypes.c_int64] * 5
    function.argtypes = [*pointers, *counts, ctypes.c_double, ctypes.c_bool, ctypes.c_bool, ctypes.c_int]
    function.restype = None

    def group_norm(x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float, *, silu: bool) -> Tensor:
        """norm(x) (arXiv:1803.08494) or silu(norm(x)), like x; the arithmetic is in float32, that of sums in float64.

        Args:
            x: (N, C, H, W), channels innermost, in float32 or bfloat16; C is a multiple of `LANES`.
            num_groups: G, dividing C.
            weight: (C,), or (N, C) for each image, float32, contiguous: the factor after the normalisation.
            bias: like weight, the term after it.
            eps: added to the variance.
            silu: whether SiLU follows.
        """
        num_images, channels, height, width = x.shape
        y = torch.empty_like(x)
        function(
            x.data_ptr(),
            y.data_ptr(),
            weight.data_ptr(),
            bias.data_ptr(),
            channels if weight.ndim == 2 else 0,
            num_images,
            height * width,
            channels,
            num_groups,
            eps,
            silu,
            x.dtype == torch.bfloat16,
            1 if x.numel() < SMALL else torch.get_num_threads(),
        )
        return y

    return group_norm


def _compile(compiler: str, source: bytes, library: Path) -> None:
    """Write the library, whole or not at all; several processes may do so at the same time."""
    LOGGER.debug("%s: compiled, once on this machine", library)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        Path(folder, "kernel.c").write_bytes(source)
        # OpenMP is not linked: its functions are those of torch's copy, so there is one set of threads.
        commands = (
            [compiler, *_OPTIONS, *_wide(), "-c", "kernel.c", "-o", "kernel.o"],
            [compiler, "-shared", "kernel.o", "-o", "kernel.so", "-lm"],
        )
        for command in commands:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_PATIENCE)
        Path(folder, "kernel.so").replace(library)


def _wide() -> list[str]:
    """gcc uses half of the registers of AVX-512 by default."""
    return ["-mprefer-vector-width=512"] if torch.backends.cpu.get_cpu_capability() == "AVX512" else []


def _folder() -> Path:
    """The cache of the user; nobody else may write to it, since programs are run from it."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "rediffuse" / "kernels"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder}: belongs to another user, or others may write to it")
    return folder


def _processor() -> bytes:
    """What `-march=native` depends on: a home may be shared by different machines."""
    lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    flags = next((line for line in lines if line.lower().startswith((b"flags", b"features"))), b"")
    names = next((line for line in lines if line.startswith(b"model name")), b"")
    return b" ".join([platform.machine().encode(), names, flags])
