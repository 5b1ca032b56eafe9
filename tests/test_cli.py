import argparse
import errno
import os
import subprocess
import sys
import types
from importlib.metadata import entry_points

import jax
import pytest

import mscaflax
from mscaflax import cli
from mscaflax.__main__ import program as program_of_the_package
from mscaflax.errors import UserError


def program(*arguments):
    """Runs `python -m mscaflax` with `arguments` as a program of its own."""
    command = [sys.executable, "-m", "mscaflax", *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)


@pytest.fixture
def command(monkeypatch):
    """A command `greet`: `command.action` is what it does, `command.takes_config` whether it has a config."""
    module = types.ModuleType("mscaflax.commands.greet")
    module.HELP = "says hello"
    module.add_arguments = lambda parser: parser.add_argument("--name", required=True)
    module.run = lambda args: module.action(args)
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def install(action, takes_config=False):
        module.action = action
        monkeypatch.setitem(cli.COMMANDS, "greet", cli.Command(module.__name__, takes_config))

    return install


def fail(error):
    def action(args):
        raise error

    return action


def test_version():
    done = program("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"mscaflax {mscaflax.__version__}\n", "")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command(flag, capsys):
    assert cli.main([flag]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in cli.COMMANDS:
        assert any(line.split()[:1] == [name] and len(line.split()) > 2 for line in lines), name


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_each_command(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: mscaflax {name}")
    assert ("--config.KEY=VALUE" in said) == cli.COMMANDS[name].takes_config


def test_installed_script_runs_main():
    (entry,) = entry_points(group="console_scripts", name="mscaflax")
    assert entry.load() is program_of_the_package


def test_wrong_input_of_a_program_is_one_line():
    done = program("tarin", "--workdir=x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mscaflax: error: unknown command 'tarin': did you mean 'train'?\n"


@pytest.mark.parametrize(
    "argv, said",
    [
        ([], "no command given"),
        (["xyz"], "the commands are prepare, train"),
        (["greet"], "--name.*see `mscaflax greet --help`"),
        (["greet", "--name=x", "--nam=y"], "--nam=y"),
        (["greet", "--name=x", "--config=scenes64"], "--config=scenes64"),
        (["greet", "--name=x", "left"], "left"),
    ],
)
def test_wrong_arguments(argv, said, command, capsys):
    command(lambda args: 0)
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("mscaflax: error: ") and err.count("\n") == 1
    with pytest.raises(UserError, match=said):
        cli.run(argv)


def test_exit_status_is_the_commands(command):
    command(lambda args: 7)
    assert cli.main(["greet", "--name=x"]) == 7


def test_user_error_is_one_line(command, capsys):
    command(fail(UserError("photo.jpg is\ncut short: \n replace it")))
    assert cli.main(["greet", "--name=x"]) == 2
    assert capsys.readouterr().err == "mscaflax: error: photo.jpg is cut short: replace it\n"


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "No space left on device"), (errno.ENAMETOOLONG, "File name too long")],
)
def test_what_the_file_system_refuses_is_one_line(number, said, command, capsys):
    command(fail(OSError(number, said, "grid.png")))
    assert cli.main(["greet", "--name=x"]) == 2
    assert capsys.readouterr().err == f"mscaflax: error: {said}: grid.png\n"


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        OSError(errno.EBADF, "Bad file descriptor"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        RuntimeError("RESOURCE_EXHAUSTED"),
        jax.errors.JaxRuntimeError("INTERNAL: a mistake"),
    ],
)
def test_a_mistake_of_the_program_keeps_its_traceback(error, command):
    command(fail(error))
    with pytest.raises(type(error)):
        cli.main(["greet", "--name=x"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory"),
        (MemoryError("Unable to allocate 9. GiB"), "not enough memory (Unable to allocate 9. GiB)"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nMore"),
            "not enough memory (RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.)",
        ),
    ],
)
def test_too_little_memory_is_one_line(error, said, command, capsys):
    command(fail(error))
    assert cli.main(["greet", "--name=x"]) == 2
    assert capsys.readouterr().err == f"mscaflax: error: {said}: try a smaller picture or batch\n"


def test_an_array_that_no_machine_holds_is_one_line(command, capsys):
    command(lambda args: jax.numpy.zeros(2**55, "uint8").block_until_ready())
    assert cli.main(["greet", "--name=x"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("mscaflax: error: not enough memory (RESOURCE_EXHAUSTED") and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["synthesize", "--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_ends_it_quietly(arguments, unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "mscaflax", *arguments],
        stdout=writing, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    os.close(writing)
    # argparse itself passes over what it cannot write.
    assert done.stderr == "" and done.returncode in ((0, 141) if arguments[1:] and unbuffered else (141,))


def test_interrupt(command, capsys):
    command(fail(KeyboardInterrupt()))
    assert cli.main(["greet", "--name=x"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, config, rest",
    [
        (["--config=a.py", "--workdir=w"], ["--config=a.py"], ["--workdir=w"]),
        (["--workdir", "w", "--config", "a.py"], ["--config=a.py"], ["--workdir", "w"]),
        (["--config.a.b", "3", "--x"], ["--config.a.b=3"], ["--x"]),
        (["--config.flag", "--config.n=-1"], ["--config.flag", "--config.n=-1"], []),
        (["--noconfig.flag", "y"], ["--noconfig.flag"], ["y"]),
        (["--configure=3", "--noconfigs"], [], ["--configure=3", "--noconfigs"]),
        (["--config"], ["--config"], []),
    ],
)
def test_config_items_are_split_off(argv, config, rest):
    assert cli.split_config(argv) == (config, rest)


def test_config_items_reach_the_command(command):
    seen = []
    command(lambda args: seen.append(args) or 0, takes_config=True)
    assert cli.main(["greet", "--config=tiny", "--name=x", "--config.train.steps=3"]) == 0
    assert seen == [argparse.Namespace(name="x", config_argv=["--config=tiny", "--config.train.steps=3"])]


RESTARTING = """
import os, sys
from mscaflax.__main__ import start_again_with_large_pages
print(sys.argv[1:], os.environ.get("GLIBC_TUNABLES"), flush=True)
start_again_with_large_pages()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
@pytest.mark.parametrize(
    ("arguments", "tunables", "seen"),
    [
        (["train", "a b"], None, [None, "glibc.malloc.hugetlb=1"]),
        (["train"], "", [""]),
        (["synthesize"], None, [None]),
        ([], None, [None]),
    ],
)
def test_long_commands_start_again_once_for_large_pages(arguments, tunables, seen):
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    if tunables is not None:
        environment["GLIBC_TUNABLES"] = tunables
    line = [sys.executable, "-c", RESTARTING, *arguments]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{arguments} {value}" for value in seen]
