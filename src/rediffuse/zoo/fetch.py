"""Download published files over HTTPS to a cache, and verify them."""

import re
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.errors import CheckpointError, ConfigError, FetchError, InputError, StorageError, shown
from rediffuse.files import sha256_of, write_bytes
from rediffuse.zoo.published import PublishedFile, PublishedModel

if TYPE_CHECKING:
    from rediffuse.zoo.download import Progress

_SHA256 = re.compile(r"[0-9a-f]{64}")


def default_cache() -> Path:
    """The folder of downloads, next to the cache of the Hugging Face hub (see `HF_HOME`)."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "rediffuse"


def published_path(published: PublishedFile, cache: Path) -> Path:
    """The path of a published file in the cache."""
    return cache / "published" / published.file


def known_sha256(published: PublishedFile, path: Path) -> str | None:
    """The checksum in the list of published files, or else the one that was recorded at the first download of `path`.

    Raises:
        InputError: the record is damaged.
    """
    record = _record(path)
    if published.sha256 or not record.is_file():
        return published.sha256
    sha256 = record.read_text(errors="replace").partition(" ")[0]
    if not _SHA256.fullmatch(sha256):
        raise InputError(f"{record}: does not begin with a SHA-256; delete it and {path.name}, and download again")
    return sha256


def fetch_published(
    published: PublishedFile,
    cache: Path,
    *,
    sha256: str | None = None,
    progress: "Progress | None" = None,
) -> Path:
    """Download a published file, or find it in the cache; verify it in both cases.

    Without a known checksum the content is checked: the checksum of every part of the zip archive, the sizes of the
    tensors, and that a model has all parameters.

    Args:
        published: the file.
        cache: a folder of downloads, such as `default_cache()`.
        sha256: the expected checksum of a file without a published one; 64 hexadecimal digits.
        progress: see `download`.

    Raises:
        FetchError: the download failed, or the file is wrong.
        ConfigError: `sha256` has another form, or another checksum is known.
        InputError: the recorded checksum is damaged.
        StorageError: the file could not be written.
    """
    path = published_path(published, cache)
    known = known_sha256(published, path)
    if sha256 is not None:
        known = _agreed(sha256.lower(), known, published, path)
    find_fault = partial(_fault, published, known)
    if not path.is_file():
        from rediffuse.zoo.download import download  # imports an HTTP client, which takes half a second

        _make_private(path.parent)
        download(published.address, path, find_fault, progress=progress)
    elif fault := find_fault(path):
        raise FetchError(f"{path}: {fault}; delete it to download it again")
    if not _record(path).is_file():
        write_bytes(_record(path), f"{known or sha256_of(path)}  {path.name}\n".encode())  # the format of sha256sum
    return path


def _make_private(folder: Path) -> None:
    """Create a folder, and those above it that are missing, for this user only."""
    try:
        for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: could not be written: {error.strerror or error}") from error


def _agreed(given: str, known: str | None, published: PublishedFile, path: Path) -> str:
    """The checksum that the user gives, after a check that no other one is known."""
    if not _SHA256.fullmatch(given):
        raise ConfigError(f"sha256={given}: 64 hexadecimal digits are needed")
    if known not in (None, given):
        where = "the list of published files" if published.sha256 else _record(path)
        raise ConfigError(f"sha256={given}: {where} has {known} for {published.file}")
    return given


def _fault(published: PublishedFile, sha256: str | None, path: Path) -> str:
    """The error of a downloaded file; empty if it is correct."""
    size = path.stat().st_size
    if size < published.min_bytes:
        return f"has {size} bytes, but at least {published.min_bytes} are expected"
    if sha256 is not None:
        found = sha256_of(path)
        return "" if found == sha256 else f"has sha256 {found}, but {sha256} is expected"
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # compares the checksum of every part
        except (zipfile.BadZipFile, OSError, RuntimeError, EOFError, zlib.error) as error:
            damaged = shown(error)
        if damaged:
            return f"is damaged: {damaged}"
    if not isinstance(published, PublishedModel):  # a program, which is not loaded
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
