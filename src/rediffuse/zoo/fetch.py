"""Where models from elsewhere come from: published files over plain HTTPS, the Hugging Face hub through its client."""

import re
from pathlib import Path

from rediffuse.errors import ConfigError, FetchError
from rediffuse.files import write_bytes
from rediffuse.zoo.download import Expected, Patience, Progress, download
from rediffuse.zoo.published import PublishedFile

_PATIENCE = Patience()
_SHA256 = re.compile(r"[0-9a-f]{64}")


def default_cache() -> Path:
    """Beside the Hugging Face hub's cache, wherever that was told to be."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "rediffuse"


def published_path(published: PublishedFile, cache: Path) -> Path:
    """Where a published file lies once it is fetched."""
    return cache / "published" / published.file


def known_sha256(published: PublishedFile, path: Path) -> str | None:
    """The checksum in the list of what is published, or else the one recorded when `path` was first downloaded."""
    if published.sha256 or not _record(path).is_file():
        return published.sha256
    return _record(path).read_text().partition(" ")[0]


def fetch_published(
    published: PublishedFile,
    cache: Path,
    *,
    sha256: str | None = None,
    patience: Patience = _PATIENCE,
    progress: Progress | None = None,
) -> Path:
    """A published file: downloaded, or found in the cache, and in both cases verified.

    Args:
        published: what.
        cache: a folder of downloads, such as `default_cache()`.
        sha256: what the file has to be, for a file whose checksum nobody publishes; 64 hexadecimal digits.
        patience, progress: see `download`.

    Raises:
        FetchError: it cannot be had or does not verify.
        ConfigError: `sha256` is none, or another one is known.
        StorageError: the disk refuses.
    """
    path = published_path(published, cache)
    known = known_sha256(published, path)
    if sha256 is not None:
        known = _agreed(sha256.lower(), known, published, path)
    expected = Expected(sha256=known, min_bytes=published.min_bytes)
    found = download(published.address, path, expected, patience=patience, progress=progress)
    if not _record(path).is_file():
        write_bytes(_record(path), f"{found}  {path.name}\n".encode())  # as sha256sum writes and checks it
    return path


def fetch_from_hub(repository: str, cache: Path | None = None, endpoint: str | None = None) -> Path:
    """The folder of a model on the Hugging Face hub; without a network, as it was last fetched.

    Args:
        repository: `owner/name`.
        cache: another folder than the hub's own cache.
        endpoint: another server than the hub.

    Raises:
        FetchError: there is no such repository, or no connection and nothing in the cache.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(endpoint=endpoint)
        files = ["config.json", "model.safetensors"]
        return Path(api.snapshot_download(repository, allow_patterns=files, cache_dir=cache))
    except Exception as error:  # its own errors and those of its HTTP library, which changes with its version
        reason = re.sub(r"\s+", " ", str(error)) or type(error).__name__
        raise FetchError(f"{repository}: could not be fetched from the hub: {reason}") from error


def _agreed(given: str, known: str | None, published: PublishedFile, path: Path) -> str:
    """The checksum that the user gives, where no other is known."""
    if not _SHA256.fullmatch(given):
        raise ConfigError(f"sha256={given}: 64 hexadecimal digits are needed")
    if known not in (None, given):
        where = "the list of published files" if published.sha256 else _record(path)
        raise ConfigError(f"sha256={given}: {where} has {known} for {published.file}")
    return given


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
