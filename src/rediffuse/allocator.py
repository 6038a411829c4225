"""The allocator of the C library, which the tensors of a CPU come from."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""The options of glibc's mallopt."""
_LARGEST_KEPT = 256 << 20
"""The feature maps of ADM at 256 px have up to 64 MiB in bf16 and 128 MiB in fp32 per image."""
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process keep memory that was freed, and use it for the next tensors.

    By default glibc returns blocks of 32 MiB or more, and the free end of its memory, to the system at once. The system
    then fills every page with zeros again before it is used, for each feature map of each call: this takes up to a
    quarter of the time of a network with large maps on a CPU. After a call of this function only blocks of more than
    256 MiB are returned. The process keeps the most memory that it needed until it ends.

    The commands of `rediffuse` call this function; the functions of the library do not, because it changes the whole
    process. It has an effect with glibc only, so not on macOS, Windows or musl; an old glibc may refuse this limit.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        library.mallopt(_TRIM_THRESHOLD, _NEVER)
