"""Where models from elsewhere come from: published files over plain HTTPS, the Hugging Face hub through its client."""

import re
from pathlib import Path

from rediffuse.errors import FetchError
from rediffuse.files import write_bytes
from rediffuse.zoo.download import Expected, Patience, Progress, download
from rediffuse.zoo.published import PublishedModel

_PATIENCE = Patience()


def default_cache() -> Path:
    """Beside the Hugging Face hub's cache, wherever that was told to be."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "rediffuse"


def published_path(model: PublishedModel, cache: Path) -> Path:
    """Where a published checkpoint lies once it is fetched."""
    return cache / "published" / model.file


def known_sha256(model: PublishedModel, path: Path) -> str | None:
    """The checksum in the list of models, or else the one recorded when `path` was first downloaded."""
    if model.sha256 or not _record(path).is_file():
        return model.sha256
    return _record(path).read_text().partition(" ")[0]


def fetch_published(
    model: PublishedModel, cache: Path, *, patience: Patience = _PATIENCE, progress: Progress | None = None
) -> Path:
    """The file of a published checkpoint: downloaded, or found in the cache, and in both cases verified.

    Raises FetchError where it cannot be had or does not verify, StorageError where the disk refuses.
    """
    path = published_path(model, cache)
    expected = Expected(sha256=known_sha256(model, path), min_bytes=model.min_bytes)
    sha256 = download(model.address, path, expected, patience=patience, progress=progress)
    if not _record(path).is_file():
        write_bytes(_record(path), f"{sha256}  {path.name}\n".encode())  # as sha256sum writes and checks it
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


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
