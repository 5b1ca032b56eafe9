"""The command line `mscaflax COMMAND`: one table of commands, each in a module of its own.

A command module in `mscaflax.commands` offers

    HELP = "one line"
    def add_arguments(parser: argparse.ArgumentParser) -> None
    def run(args: argparse.Namespace) -> int          # the exit status

and is light to import: it loads JAX, TensorFlow and the rest inside `run`. A command with a config
finds its `--config=FILE[:ARGS]` and `--config.KEY=VALUE` items, untouched, in `args.config_argv`, to
be given to `mscaflax.config.load_config`.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn, TextIO

import mscaflax
from mscaflax.errors import UserError


class Command(NamedTuple):
    """Where a command lives, and whether it takes `--config`."""

    module: str
    takes_config: bool = False


COMMANDS = {
    "prepare": Command("mscaflax.commands.prepare"),
    "train": Command("mscaflax.commands.train", takes_config=True),
    "segmenter": Command("mscaflax.commands.segmenter"),
    "evaluate": Command("mscaflax.commands.evaluate"),
    "synthesize": Command("mscaflax.commands.synthesize"),
    "blend": Command("mscaflax.commands.blend"),
    "edit": Command("mscaflax.commands.edit"),
    "extrapolate": Command("mscaflax.commands.extrapolate"),
    "segment": Command("mscaflax.commands.segment"),
    "pack": Command("mscaflax.commands.pack"),
    "export": Command("mscaflax.commands.export"),
    "retrieve": Command("mscaflax.commands.retrieve"),
    "studio": Command("mscaflax.commands.studio"),
    "compile": Command("mscaflax.commands.compile", takes_config=True),
}

CONFIG_HELP = """\
config:
  --config=FILE[:ARGS]   a config file, or the name of a shipped one (scenes64)
  --config.KEY=VALUE     overrides one value of it, e.g. --config.train.steps=100
"""

_CONFIG_ITEM = re.compile(r"--config(=|\.|$)|--noconfig\.")

# What the file system can refuse although the program is right.
_ENVIRONMENT_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EISDIR)
}


_XLA_MEMORY = "RESOURCE_EXHAUSTED"
_STATUS_OF_SIGPIPE = 141  # what shells show for a program that this signal ended


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are UserErrors: one line, no usage text before it."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see `{self.prog} --help`)")


def split_config(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits `argv` into (config items, all other items), each in its order.

    A config item is `--config...` or `--noconfig.KEY`; one without `=` takes the next item as its value
    unless that starts with a dash (`--config scenes64` becomes `--config=scenes64`).
    """
    config, rest = [], []
    waiting = list(argv)
    while waiting:
        item = waiting.pop(0)
        if not _CONFIG_ITEM.match(item):
            rest.append(item)
            continue
        if "=" not in item and not item.startswith("--no") and waiting and not waiting[0].startswith("-"):
            item = f"{item}={waiting.pop(0)}"
        config.append(item)
    return config, rest


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {importlib.import_module(c.module).HELP}" for name, c in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mscaflax COMMAND [ARGUMENTS]",
            "",
            "An image with the layout of a label map and the style of an example photo.",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  -h, --help  this text; `mscaflax COMMAND --help` for one command",
            "  --version   print the version",
        ]
    )


def _unknown_command(name: str) -> UserError:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the commands are {', '.join(COMMANDS)}"
    return UserError(f"unknown command {name!r}: {hint}")


def run(argv: Sequence[str]) -> int:
    """Runs the command in `argv` (without the program's name); returns its exit status.

    Raises:
      UserError: unknown command or argument, or wrong input found by the command.
    """
    if not argv:
        raise UserError("no command given (see `mscaflax --help`)")
    name, *rest = argv
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name == "--version":
        print(f"mscaflax {mscaflax.__version__}")
        return 0
    if name not in COMMANDS:
        raise _unknown_command(name)
    command = COMMANDS[name]
    module = importlib.import_module(command.module)
    parser = _Parser(
        prog=f"mscaflax {name}",
        description=module.HELP,
        epilog=CONFIG_HELP if command.takes_config else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    config_argv = []
    if command.takes_config:
        config_argv, rest = split_config(rest)
    args = parser.parse_args(rest)
    if command.takes_config:
        args.config_argv = config_argv
    return module.run(args)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether XLA could not allocate. What is not loaded yet has raised nothing: JAX need not be imported."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(error, jax.errors.JaxRuntimeError) and _XLA_MEMORY in str(error)


def _not_enough_memory(error: Exception) -> str:
    details = str(error).strip().partition("\n")[0]
    return f"not enough memory{details and f' ({details})'}: try a smaller picture or batch"


def _has_reader(stream: TextIO) -> bool:
    try:
        print(file=stream, flush=True)
    except BrokenPipeError:
        return False
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status.

    0 done, 2 wrong input or too little memory (one line on stderr says what), 130 interrupted, 141 where
    no one reads stdout any more; anything else is the command's own. An exception that is no one's input
    error passes through with its traceback.
    """
    try:
        try:
            return run(sys.argv[1:] if argv is None else argv)
        finally:
            # Now, while a reader that has gone can still be told from a mistake.
            print(end="", flush=True)
    except UserError as error:
        message = str(error)
    except MemoryError as error:
        message = _not_enough_memory(error)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        message = _not_enough_memory(error)
    except BrokenPipeError:
        if _has_reader(sys.stdout):
            raise
        # Python writes what is left when it ends, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _STATUS_OF_SIGPIPE
    except OSError as error:
        if error.errno not in _ENVIRONMENT_ERRORS:
            raise
        message = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    except KeyboardInterrupt:
        print("mscaflax: interrupted", file=sys.stderr)
        return 130
    print(f"mscaflax: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
