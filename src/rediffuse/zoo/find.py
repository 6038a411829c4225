"""Find a model by the user's name or path: its tensors, configuration and provenance."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import CheckpointError, ConfigError, InputError, nearest
from rediffuse.files import sha256_of
from rediffuse.models.checkpoints import read_state_dict
from rediffuse.models.layout import infer
from rediffuse.zoo import hub
from rediffuse.zoo.fetch import default_cache, known_sha256, published_path
from rediffuse.zoo.folder import Found, Provenance, read_folder
from rediffuse.zoo.pipelines.pipeline import is_pipeline
from rediffuse.zoo.published import DEFAULT, PUBLISHED, default_folder


def find(
    source: str | Path,
    network: Mapping[str, Any] | None = None,
    process: ProcessConfig | None = None,
    cache: Path | None = None,
) -> Found:
    """Read a model's tensors and configuration; arguments and errors are those of `model.load`.

    The caller must check two things: fields of a file of weights may be unknown (`Layout.unknown`), and the tensors of
    a folder may not fit its configuration.
    """
    if source in PUBLISHED:
        model = PUBLISHED[str(source)]
        path = published_path(model, cache or default_cache())
        if not path.is_file():
            raise InputError(f"{source}: is not downloaded yet; run `rediffuse models fetch {source}`")
        found = _from_weights(path, network, process)
        expected = known_sha256(model, path)
        if expected not in (None, found.provenance.sha256):
            raise CheckpointError(
                f"{path}: sha256 is {found.provenance.sha256}, but {expected} is expected; delete the file"
            )
        return found
    path, origin = _locate(source, cache)
    if path.is_file():
        return _from_weights(path, network, process)
    if network or process:
        raise ConfigError(f"{source}: has its own configuration; give network and process only for files of weights")
    if is_pipeline(path):
        raise CheckpointError(f"{source}: is a pipeline of diffusers; a model of rediffuse is needed")
    return read_folder(path, origin)


def find_pipeline(source: str | Path, cache: Path | None = None) -> tuple[Path, str] | None:
    """The folder of a pipeline of diffusers and its name for the provenance; None if the source is another model.

    Arguments and errors are those of `model.load`.
    """
    if source in PUBLISHED:
        return None
    path, origin = _locate(source, cache)
    return (path, origin) if path.is_dir() and is_pipeline(path) else None


def _locate(source: str | Path, cache: Path | None) -> tuple[Path, str]:
    """The folder or file of a source, and its name for the provenance."""
    if source == DEFAULT:
        return default_folder(), DEFAULT
    if Path(source).exists():
        return Path(source), str(source)
    if isinstance(source, str) and hub.NAME.fullmatch(source):
        folder = hub.fetch_from_hub(source, cache and cache / "hub")
        name = source.partition("@")[0]
        snapshot = folder.parent if name.count("/") == 2 else folder  # its name in the hub's cache is the commit
        return folder, f"{name}@{snapshot.name}"
    hint = nearest(str(source), [DEFAULT, *PUBLISHED])
    raise InputError(f"{source}: no such folder or file, and no model of that name{hint}")


def _from_weights(path: Path, network: Mapping[str, Any] | None, process: ProcessConfig | None) -> Found:
    """A file of weights: its configuration comes from the list of published files, the tensors, and the user."""
    known = dict(network or {})
    published = PUBLISHED.get(path.stem)
    if published:
        known = vars(published.network) | {"kind": published.kind} | known
        process = process or published.process
    state = read_state_dict(path)
    layout = infer(state, str(path), known)
    if process is None:
        layout = replace(layout, unknown=(*layout.unknown, "process"))
    return Found(
        layout=layout,
        process=process,
        training=published.training if published else {},
        state=state,
        provenance=Provenance(source=str(path), sha256=sha256_of(path)),
    )
