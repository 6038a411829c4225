"""`rediffuse COMMAND ...`: find the command, read its flags, run it, print its result.

A command's module is imported only when that command is called, and imports torch only when it runs, so help is fast.

The result is printed on standard output, as text or with `--json` as one document; everything else on standard error.

Exit statuses: 0 success; 1 some files failed, or a disk or network error; 2 usage error (a flag, a path, weights that
do not fit); 130 interrupted; 141 standard output was closed by its reader.
"""

import contextlib
import importlib
import io
import os
import shutil
import sys
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType

from rediffuse.allocator import keep_freed_memory
from rediffuse.cli.console import log_to_stderr, say_error
from rediffuse.errors import CheckpointError, ConfigError, InputError, RediffuseError, SettingsMismatch, nearest

if typing.TYPE_CHECKING:
    from rediffuse.cli.flags import CommandFlags

FAILED, MISUSED, INTERRUPTED, READER_GONE = 1, 2, 130, 141
SHELLS = ("bash", "zsh", "fish")
NO_TELEMETRY = {"HF_HUB_DISABLE_TELEMETRY": "1", "DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}
"""The environment variables that forbid dependencies to report their use; they read them when they are imported."""
WIDEST_HELP = 100
"""Largest width of help, in characters."""


@dataclass(frozen=True)
class Command:
    """The location of a command's `function(flags) -> Result`; its annotation names the dataclass of the flags."""

    module: str
    function: str
    summary: str


COMMANDS = {
    "detect": Command("detect", "run", "judge images: real, generated or unsure"),
    "dire": Command("dire", "run", "reconstruct images and save the error maps (DIRE)"),
    "models": Command("models", "run", "list the embedded model and the published ones"),
    "models fetch": Command("models", "fetch", "download a published model or feature network and verify it"),
    "sample": Command("sample", "run", "generate images, each from its own seed"),
    "upscale": Command("upscale", "run", "enlarge images with a super-resolution model"),
    "invert": Command("invert", "run", "compute the DDIM latents of images"),
    "interpolate": Command("interpolate", "run", "generate the images between two images"),
    "eval fid": Command("eval_fid", "run", "FID, sFID, inception score, precision and recall of samples"),
    "eval nll": Command("eval_nll", "run", "bits per dimension of images under a model"),
    "eval detector": Command("eval_detector", "run", "figures of a detector and its control on images of known class"),
    "eval robustness": Command("eval_robustness", "run", "figures of a detector after changes of the images"),
    "calibrate": Command("calibrate", "run", "choose the thresholds of a detector by your own photographs"),
    "convert": Command("convert", "run", "convert weights into a model folder, a plain .pt or a detector"),
    "info": Command("info", "run", "show the configuration, size and cost of a model"),
    "bench": Command("bench", "run", "measure the speed of a model on this machine"),
    "serve": Command("serve", "run", "judge images on a page in the browser, and over HTTP"),
    "audit": Command("audit", "run", "check what reveals the class of a file in a data set"),
    "align": Command("align", "run", "copy a data set so that its files no longer reveal the class"),
    "train diffusion": Command("train_diffusion", "run", "train a diffusion model on a folder of images"),
    "train classifier": Command("train_classifier", "run", "train a classifier of noisy images, for guidance"),
    "train superres": Command("train_superres", "run", "train a super-resolution model on a folder of images"),
    "train detector": Command("train_detector", "run", "train a detector on real and generated images"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: the words after `rediffuse`; None uses those of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # so that every file name can be shown
    try:
        status = _dispatch(words)
        sys.stdout.flush()  # here, where the error of a closed pipe can still be caught
    except RediffuseError as error:
        say_error(error)
        misused = isinstance(error, ConfigError | InputError | CheckpointError | SettingsMismatch)
        return MISUSED if misused else FAILED
    except KeyboardInterrupt:
        say_error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout again when it ends, which must not raise the error again.
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
            from importlib.metadata import version  # slow to import

            print(f"rediffuse {version('rediffuse')}")
            return 0
        case [flag, *shell] if flag.partition("=")[0] in ("--print-completion", "--print_completion"):
            print(_completion(*flag.split("=")[1:], *shell))
            return 0
    name = _command_name(words)
    if name in COMMANDS:
        return _call(name, words[len(name.split()) :])
    if words[1:] in (["-h"], ["--help"]):
        print(_overview(name))
        return 0
    raise InputError(f"{name} needs one of {', '.join(_below(name))} after it; see `rediffuse {name} --help`")


def _command_name(words: list[str]) -> str:
    """The command at the beginning of the words, or a group of commands such as `train`."""
    first = words[0]
    below = _below(first)
    if len(words) > 1 and below and not words[1].startswith("-"):
        if words[1] not in below:
            raise InputError(_unknown(f"{first} {words[1]}", [f"{first} {name}" for name in below]))
        return f"{first} {words[1]}"
    if first.startswith("-"):
        known = ("--help", "--version", "--print-completion")
        raise InputError(f"{first}: a command is needed first; flags without a command are {', '.join(known)}")
    if first not in COMMANDS and not below:
        raise InputError(_unknown(first, dict.fromkeys(name.split()[0] for name in COMMANDS)))
    return first


def _below(group: str) -> list[str]:
    return [name.removeprefix(f"{group} ") for name in COMMANDS if name.startswith(f"{group} ")]


def _unknown(given: str, allowed: Iterable[str]) -> str:
    allowed = list(allowed)
    return f"{given} is not a command ({', '.join(allowed)}){nearest(given, allowed)}"


def _call(name: str, words: list[str]) -> int:
    from rediffuse.cli.flags import asks_for_help, help_text, parse  # not needed for a misspelt command

    module, kind = _load(name)
    function = getattr(module, COMMANDS[name].function)
    # If the defaults depend on a flag (a recipe), the command computes them from the words.
    default = module.defaults(words) if hasattr(module, "defaults") else None
    command = f"rediffuse {name}"
    if asks_for_help(words):
        width = min(shutil.get_terminal_size().columns, WIDEST_HELP)
        print(help_text(kind, command=command, default=default, width=width))
        return 0
    args = parse(kind, words, command=command, default=default)
    if args.quiet and args.verbose:
        raise ConfigError("--quiet and --verbose: only one of them can be given")
    keep_freed_memory()
    # With --json, output of third-party code must not be mixed with the document.
    with log_to_stderr(quiet=args.quiet, verbose=args.verbose):
        with contextlib.redirect_stdout(sys.stderr):
            result = function(args)
        with result.kept:
            text = result.json() if args.json else result.text
            for line in filter(None, [text] if isinstance(text, str) else text):
                print(line)
        if result.stopped_by is not None:
            raise result.stopped_by
    return result.status


def _load(name: str) -> "tuple[ModuleType, type[CommandFlags]]":
    """The module of a command, and the dataclass of its flags."""
    module = importlib.import_module(f"rediffuse.cli.{COMMANDS[name].module}")
    return module, typing.get_type_hints(getattr(module, COMMANDS[name].function))["args"]


def _completion(shell: str = "", *more: str) -> str:
    if shell not in SHELLS or more:
        given = " ".join(["--print-completion", shell, *more]).strip()
        raise ConfigError(f"{given}: one of {', '.join(SHELLS)} is needed{nearest(shell, SHELLS)}")
    from rediffuse.cli.completion import Completed, script

    return script(shell, {name: Completed(*_load(name), command.summary) for name, command in COMMANDS.items()})


def _overview(group: str) -> str:
    """The commands of a group (all commands if it is empty) with their summaries."""
    names = [name for name in COMMANDS if not group or name.startswith(f"{group} ")]
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  {COMMANDS[name].summary}" for name in names]
    usage = " ".join(word for word in ("usage: rediffuse", group, "COMMAND [flags]") if word)
    text = [usage, "", *lines, "", "`rediffuse COMMAND --help` lists a command's flags."]
    if not group:
        text += [
            "",
            "Every command has --quiet, --verbose and --json.",
            "Exit status: 0 success; 1 some files failed, or a disk or network error; 2 usage error; 130 interrupted.",
            f"Also: `rediffuse --version`, and `rediffuse --print-completion {'|'.join(SHELLS)}` for the shell.",
        ]
    return "\n".join(text)
