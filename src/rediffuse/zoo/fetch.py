"""Published files, downloaded over plain HTTPS into a cache and verified."""

import re
import zipfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.errors import CheckpointError, ConfigError, FetchError, InputError
from rediffuse.files import sha256_of, write_bytes
from rediffuse.zoo.published import PublishedFile, PublishedModel

if TYPE_CHECKING:
    from rediffuse.zoo.download import Progress

_SHA256 = re.compile(r"[0-9a-f]{64}")


def default_cache() -> Path:
    """Beside the Hugging Face hub's cache, wherever that was told to be."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "rediffuse"


def published_path(published: PublishedFile, cache: Path) -> Path:
    """Where a published file lies once it is fetched."""
    return cache / "published" / published.file


def known_sha256(published: PublishedFile, path: Path) -> str | None:
    """The checksum in the list of what is published, or else the one recorded when `path` was first downloaded.

    Raises:
        InputError: the record is damaged.
    """
    record = _record(path)
    if published.sha256 or not record.is_file():
        return published.sha256
    sha256 = record.read_text(errors="replace").partition(" ")[0]
    if not _SHA256.fullmatch(sha256):
        raise InputError(f"{record}: does not begin with a SHA-256; delete it and {path.name}, and fetch it again")
    return sha256


def fetch_published(
    published: PublishedFile,
    cache: Path,
    *,
    sha256: str | None = None,
    progress: "Progress | None" = None,
) -> Path:
    """A published file: downloaded, or found in the cache, and in both cases verified.

    Without a known checksum its content is verified: that the file is complete, and a model has all its parameters.

    Args:
        published: what.
        cache: a folder of downloads, such as `default_cache()`.
        sha256: what the file has to be, for a file whose checksum nobody publishes; 64 hexadecimal digits.
        progress: see `download`.

    Raises:
        FetchError: it cannot be had or does not verify.
        ConfigError: `sha256` is none, or another one is known.
        InputError: the recorded checksum is damaged.
        StorageError: the disk refuses.
    """
    path = published_path(published, cache)
    known = known_sha256(published, path)
    if sha256 is not None:
        known = _agreed(sha256.lower(), known, published, path)
    find_fault = partial(_fault, published, known)
    if not path.is_file():
        from rediffuse.zoo.download import download  # with its HTTP client, which takes half a second to import

        download(published.address, path, find_fault, progress=progress)
    elif fault := find_fault(path):
        raise FetchError(f"{path}: {fault}; delete it to download it again")
    if not _record(path).is_file():
        write_bytes(_record(path), f"{known or sha256_of(path)}  {path.name}\n".encode())  # as sha256sum writes it
    return path


def _agreed(given: str, known: str | None, published: PublishedFile, path: Path) -> str:
    """The checksum that the user gives, where no other is known."""
    if not _SHA256.fullmatch(given):
        raise ConfigError(f"sha256={given}: 64 hexadecimal digits are needed")
    if known not in (None, given):
        where = "the list of published files" if published.sha256 else _record(path)
        raise ConfigError(f"sha256={given}: {where} has {known} for {published.file}")
    return given


def _fault(published: PublishedFile, sha256: str | None, path: Path) -> str:
    """What is wrong with a downloaded file; empty where nothing is."""
    size = path.stat().st_size
    if size < published.min_bytes:
        return f"has {size} bytes, but at least {published.min_bytes} are expected"
    if sha256 is not None:
        found = sha256_of(path)
        return "" if found == sha256 else f"has sha256 {found}, but {sha256} is expected"
    if not isinstance(published, PublishedModel):  # a program: it is not opened, but its directory stands at its end
        return "" if zipfile.is_zipfile(path) else "is not a TorchScript file, or not a complete one"
    from rediffuse.models.checkpoints import read_state_dict

    try:
        parameters = sum(tensor.numel() for tensor in read_state_dict(path).values())
    except CheckpointError as error:
        return str(error).removeprefix(f"{path}: ")
    return (
        ""
        if parameters == published.parameters
        else f"holds {parameters} parameters, but {published.parameters} are expected"
    )


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
