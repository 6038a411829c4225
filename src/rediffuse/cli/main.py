"""`rediffuse COMMAND ...`: find the command, let tyro read its flags, turn errors into one line and an exit status.

A command's module is imported only when that command is called, and imports torch only when it runs: help stays fast.

Exit statuses: 0 done; 1 some files were not done, or something outside failed (disk, network); 2 the call itself has to
be mended (a flag, a path, weights that do not fit); 130 interrupted; 141 the reader of our output went away.
"""

import contextlib
import importlib
import io
import os
import sys
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rediffuse.errors import CheckpointError, ConfigError, InputError, RediffuseError, SettingsMismatch, nearest

FAILED, MISUSED, INTERRUPTED, READER_GONE = 1, 2, 130, 141


@dataclass(frozen=True)
class Command:
    """Where a command lives: `function(flags) -> int`, whose annotation names the dataclass of its flags."""

    module: str
    function: str
    summary: str


COMMANDS = {
    "detect": Command("detect", "run", "judge images: real, generated or unsure, with evidence to look at"),
    "dire": Command("dire", "run", "reconstruct images and keep the error maps"),
    "models": Command("models", "run", "list the embedded model and the published ones"),
    "models fetch": Command("models", "fetch", "download a published model or feature network and verify it"),
    "sample": Command("sample", "run", "make images, each from its own seed"),
    "upscale": Command("upscale", "run", "enlarge images with a super-resolution model"),
    "invert": Command("invert", "run", "turn images into the latents that lead back to them"),
    "interpolate": Command("interpolate", "run", "make the images between two images"),
    "eval fid": Command("eval_fid", "run", "how near samples are to a reference: FID, precision, recall and others"),
    "eval nll": Command("eval_nll", "run", "bits per dimension of images under a model"),
    "convert": Command("convert", "run", "turn weights into a model folder, or into a plain .pt"),
    "info": Command("info", "run", "say what a model is, how large, and what it costs"),
    "train diffusion": Command("train_diffusion", "run", "train a diffusion model on a folder of images"),
    "train classifier": Command("train_classifier", "run", "train a classifier of noisy images, to guide by"),
    "train superres": Command("train_superres", "run", "train a super-resolution model on a folder of images"),
    "train detector": Command("train_detector", "run", "train a detector on real and generated images"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: the words after `rediffuse`; None takes them from the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name that the terminal cannot show ends no job
    try:
        status = _dispatch(words)
        sys.stdout.flush()  # here, where a reader that has gone can still be caught
    except RediffuseError as error:
        print(f"rediffuse: {error}", file=sys.stderr)
        misused = isinstance(error, ConfigError | InputError | CheckpointError | SettingsMismatch)
        return MISUSED if misused else FAILED
    except KeyboardInterrupt:
        print("rediffuse: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it ends; nobody reads that either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    return status


def _dispatch(words: list[str]) -> int:
    match words:
        case []:
            print(_overview(""), file=sys.stderr)
            return MISUSED
        case ["-h" | "--help"]:
            print(_overview(""))
            return 0
        case ["--version"]:
            from importlib.metadata import version  # a third of the time that help takes, and only needed here

            print(f"rediffuse {version('rediffuse')}")
            return 0
    name = _command_name(words)
    if name in COMMANDS:
        return _call(name, words[len(name.split()) :])
    if words[1:] in (["-h"], ["--help"]):
        print(_overview(name))
        return 0
    raise InputError(f"{name} needs one of {', '.join(_below(name))} after it; `rediffuse {name} --help` explains them")


def _command_name(words: list[str]) -> str:
    """The longest command that the words begin with, or a group of commands such as `train`."""
    first = words[0]
    below = _below(first)
    if len(words) > 1 and below and not words[1].startswith("-"):
        if words[1] not in below:
            raise InputError(_unknown(f"{first} {words[1]}", [f"{first} {name}" for name in below]))
        return f"{first} {words[1]}"
    if first not in COMMANDS and not below:
        raise InputError(_unknown(first, dict.fromkeys(name.split()[0] for name in COMMANDS)))
    return first


def _below(group: str) -> list[str]:
    return [name.removeprefix(f"{group} ") for name in COMMANDS if name.startswith(f"{group} ")]


def _unknown(given: str, allowed: Iterable[str]) -> str:
    allowed = list(allowed)
    return f"{given} is not a command ({', '.join(allowed)}){nearest(given, allowed)}"


def _call(name: str, flags: list[str]) -> int:
    import tyro  # a tenth of a second that a misspelt command or the overview need not wait for
    from tyro.conf import AvoidSubcommands, DisallowNone, FlagCreatePairsOff, PositionalMetavarFromFieldName

    command = COMMANDS[name]
    module = importlib.import_module(f"rediffuse.cli.{command.module}")
    function = getattr(module, command.function)
    kind = typing.get_type_hints(function)["args"]
    # Where one flag decides the defaults of the others (a recipe), the command looks at the words first.
    default = module.defaults(flags) if hasattr(module, "defaults") else tyro.MISSING_NONPROP
    style = (AvoidSubcommands, DisallowNone, FlagCreatePairsOff, PositionalMetavarFromFieldName)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            args = tyro.cli(kind, prog=f"rediffuse {name}", args=flags, default=default, config=style)
    except SystemExit as end:
        # A dataclass refused a value: tyro draws a box around what is one line, of all commands alike.
        refused = _refusal(end)
        if refused is not None:
            raise refused from None
        print(printed.getvalue(), end="", file=sys.stderr)
        raise
    return function(args)


def _refusal(error: BaseException | None) -> RediffuseError | None:
    """Our own error among those that led to another."""
    while error is not None and not isinstance(error, RediffuseError):
        error = error.__context__
    return error


def _overview(group: str) -> str:
    """The commands of a group (all of them for the empty one) with their summaries."""
    names = [name for name in COMMANDS if not group or name.startswith(f"{group} ")]
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  {COMMANDS[name].summary}" for name in names]
    usage = " ".join(word for word in ("usage: rediffuse", group, "COMMAND [flags]") if word)
    return "\n".join([usage, "", *lines, "", "`rediffuse COMMAND --help` lists a command's flags."])
