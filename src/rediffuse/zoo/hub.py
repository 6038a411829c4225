"""Models on the Hugging Face hub, through huggingface_hub with its cache, login and addresses."""

import re
from functools import partial
from pathlib import Path

from rediffuse.errors import FetchError, StorageError
from rediffuse.zoo.card import CARD_FILE, is_generated
from rediffuse.zoo.folder import CONFIG_FILE, WEIGHTS_FILE, is_model_folder
from rediffuse.zoo.pipelines.pipeline import INDEX_FILE, UNWANTED_FILES, is_pipeline, wanted_files

NAME = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(/(?P<part>vae|vqvae|movq))?(@(?P<revision>[\w./-]+))?")
"""`owner/name`, or `owner/name/vae` for the autoencoder of a pipeline alone, which has one of the three names.

`@` and a branch, a tag or a commit may follow."""


def fetch_from_hub(name: str, cache: Path | None = None, endpoint: str | None = None) -> Path:
    """Download a model of the Hugging Face hub and return its folder; without a connection use the last download.

    Args:
        name: see `NAME`; of a part of a pipeline only this part is downloaded, and its folder returned.
        cache: a folder to use instead of the hub's own cache.
        endpoint: the address of another server.

    Raises:
        FetchError: there is no such repository, or no connection and no earlier download.
    """
    from huggingface_hub import HfApi

    match = NAME.fullmatch(name)
    assert match is not None, name
    api, part = HfApi(endpoint=endpoint), match["part"]
    fetch = partial(api.snapshot_download, match["repository"], revision=match["revision"], cache_dir=cache)
    try:
        if part:
            files = [f"{part}/*.json", f"{part}/*.safetensors"]
            return Path(fetch(allow_patterns=files, ignore_patterns=UNWANTED_FILES)) / part
        folder = Path(fetch(allow_patterns=[CONFIG_FILE, INDEX_FILE]))
        if is_pipeline(folder):
            fetch(allow_patterns=wanted_files(folder), ignore_patterns=UNWANTED_FILES)
        elif is_model_folder(folder):  # the weights of another program are not downloaded
            fetch(allow_patterns=[WEIGHTS_FILE])
        return folder
    except Exception as error:  # also errors of its HTTP library, which depends on its version
        raise FetchError(f"{name}: could not be fetched from the hub: {_one_line(error)}") from error


def push_folder(
    folder: Path,
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload a model folder in one commit; returns the commit's address. A model card that a person wrote is kept.

    Args:
        folder: from `write_folder`.
        repository: `owner/name`; it is created if missing.
        private: whether a new repository is visible only to its owner; None is the owner's default.
        token: an access token; None uses the login of `hf auth login`.
        endpoint: the address of another server.

    Raises:
        StorageError: the hub refuses the upload, or cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(endpoint=endpoint, token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        keeps_card = api.file_exists(repository, CARD_FILE) and not is_generated(
            Path(api.hf_hub_download(repository, CARD_FILE))
        )
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            ignore_patterns=[CARD_FILE] if keeps_card else None,
            commit_message="Upload a model of rediffuse",
        )
    except Exception as error:  # as above
        raise StorageError(f"{repository}: could not be pushed to the hub: {_one_line(error)}") from error
    return commit.commit_url


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
