"""What a file may be, and take, to be decoded."""

from dataclasses import dataclass
from math import ceil

from rediffuse.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on the size of an image file, and its budget."""

    max_bytes: int = 1 << 30
    """Largest file that is read, in bytes."""
    max_pixels: int = 100_000_000
    """Largest number of pixels; it is checked in the file's header, before any decoding."""
    min_side: int = 8
    """Smallest side in pixels: one JPEG block. The network's input of a smaller image would be mostly interpolated."""
    max_aspect: int = 100
    """Largest ratio of the sides: a strip, enlarged until its short side fits the network, could fill the memory."""

    seconds: int = 5
    """CPU time in which a file must be decoded."""
    memory: int = 512 << 20
    """Memory in bytes that decoding a file may take, beside the interpreter and the bytes of the file; kept on Linux
    only."""

    @classmethod
    def for_pixels(cls, max_pixels: int) -> "Limits":
        """The limits with this `max_pixels`; if it is larger than the default, so is the budget, proportionally.

        Raises:
            ConfigError: `max_pixels` is below 1.
        """
        if max_pixels < 1:
            raise ConfigError(f"max_pixels={max_pixels}: at least 1 is needed")
        growth = max(1.0, max_pixels / cls.max_pixels)
        return cls(max_pixels=max_pixels, seconds=ceil(cls.seconds * growth), memory=round(cls.memory * growth))


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How large image files may be; a base of the flags of every command that reads them."""

    max_pixels: int = Limits.max_pixels
    """Largest file that is decoded, in pixels. Each file may take 5 s of CPU time and 512 MiB of memory; with a larger
    number, proportionally more."""

    @property
    def decoding(self) -> Limits:
        """The limits of each file."""
        return Limits.for_pixels(self.max_pixels)
