"""`rediffuse serve`: a page and an interface for programs that judge uploaded images."""

import importlib.util
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from rediffuse.cli.flags import FLAT, MODEL, Argument, CommandFlags
from rediffuse.cli.result import Result
from rediffuse.errors import ConfigError
from rediffuse.models.config import PrecisionChoice
from rediffuse.web.config import Address, ServerLimits, WorkerOptions

TOKEN = "REDIFFUSE_TOKEN"


@dataclass(frozen=True, kw_only=True)
class ServeFlags(CommandFlags):
    """Judge images that are uploaded with a browser, or by programs over HTTP.

    Needs `pip install 'rediffuse[web]'`. Open the address in a browser; /api/openapi.json describes the interface for
    programs. The server runs until Ctrl-C or SIGTERM: then it takes no more files, and finishes what is begun.
    """

    host: str = "127.0.0.1"
    """The address to listen on. With any other than this machine's own, all who reach it can use the server, so that a
    token is needed."""
    port: int = 8000
    """The port to listen on; 0 is any free one."""
    token: str | None = None
    """A secret of at least 16 characters that clients must send; the variable REDIFFUSE_TOKEN sets it without showing
    it in the list of processes."""
    model: Annotated[tuple[str, ...], MODEL] = ("default",)
    """The models that the detectors were trained with; can be repeated."""
    detector: Annotated[tuple[str, ...], Argument(metavar="DETECTOR")] = ("default",)
    """The detectors that clients can choose from, by the names given here; the first one is used by default. Can be
    repeated."""
    limits: Annotated[ServerLimits, FLAT] = field(default_factory=ServerLimits)
    batch_size: int = 16
    """Images, or windows of images, per call of the network."""
    workers: int = min(4, os.cpu_count() or 1)
    """Threads that decode images, and threads that make the pictures of the pages."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one."""
    precision: PrecisionChoice = "auto"
    """Number format inside the network; auto is the fastest one here for which the detector was shown to give equal
    verdicts."""
    folder: Path | None = None
    """Where uploads and results are kept while the server runs; a temporary folder if not given."""


def run(args: ServeFlags) -> Result:
    """Run the server until it is stopped."""
    if missing := [name for name in ("fastapi", "uvicorn", "prometheus_client") if not importlib.util.find_spec(name)]:
        raise ConfigError(f"serve: {missing[0]} is not installed; run `pip install 'rediffuse[web]'`")
    address = Address(
        host=args.host, port=args.port, token=args.token or os.environ.get(TOKEN) or None, folder=args.folder
    )
    options = WorkerOptions(
        models=args.model,
        detectors=args.detector,
        batch_size=args.batch_size,
        workers=args.workers,
        device=args.device,
        precision=args.precision,
        limits=args.limits.for_files(),
        patience=args.limits.max_seconds,
    )

    from rediffuse.web.server import serve

    serve(address, args.limits, options)
    return Result(text="", record={})
