"""What goes wrong outside of the program, by real processes: kills, damaged files, a full disk."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

pytestmark = pytest.mark.slow
# Nothing but the training: health and samples have programs of their own.
BARE = ["--config.train.health_every=0", "--config.train.sample_every=0"]


def command(workdir, arguments):
    return [sys.executable, "-m", "mscaflax", "train", f"--workdir={workdir}", *arguments, *BARE]


def run(line, status=0):
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def checkpoints_of(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def assert_same_checkpoint(one, other, step, read_checkpoint):
    leaves = [jax.tree.leaves(read_checkpoint(folder, step)) for folder in (one, other)]
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def unbroken(tiny_arguments, tmp_path_factory):
    """Four steps in a process of its own. Read only: copy it to change it."""
    workdir = tmp_path_factory.mktemp("faults") / "run"
    run(command(workdir, tiny_arguments))
    return workdir


def test_a_kill_during_a_save_leaves_the_one_before(unbroken, tiny_arguments, tmp_path, read_checkpoint):
    workdir = tmp_path / "run"
    often = [*tiny_arguments, "--config.train.checkpoint_every=1"]
    with subprocess.Popen(
        command(workdir, often), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as program:
        # Killed while step 3 is being written.
        while not (partial := list(workdir.glob("checkpoints/3.orbax-checkpoint-tmp*"))):
            assert program.poll() is None, "the run ended, and its save was not seen"
            time.sleep(0.001)
        program.send_signal(signal.SIGKILL)
    assert partial[0].exists() and checkpoints_of(workdir)[-1] == 2
    assert "resuming at step 2" in run(command(workdir, often))
    assert_same_checkpoint(workdir, unbroken, 4, read_checkpoint)
    assert not list(workdir.glob("checkpoints/*tmp*"))


@pytest.mark.parametrize("how", ["flipped", "truncated"])
def test_a_damaged_checkpoint_is_passed_over(how, unbroken, tiny_arguments, tmp_path, read_checkpoint):
    workdir = shutil.copytree(unbroken, tmp_path / "run")
    largest = max((workdir / "checkpoints/4").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content if how == "flipped" else content[:-10])
    said = run(command(workdir, tiny_arguments))
    assert "the checkpoint of step 4 is damaged" in said and largest.name in said
    assert "resuming at step 2" in said and (workdir / "damaged/4").is_dir()
    assert_same_checkpoint(workdir, unbroken, 4, read_checkpoint)


# Trains as the command does, but step 3 leaves parameters that are not numbers.
POISONED = """
import sys
import jax, jax.numpy as jnp
from mscaflax import cli
from mscaflax.training import synthesis

make_step = synthesis.make_train_step

def make_poisoned(*arguments):
    step = make_step(*arguments)
    spoil = jax.jit(lambda state: state.replace(
        generator=jax.tree.map(lambda x: jnp.where(state.step == 3, jnp.nan, x), state.generator)))
    def poisoned(state, constants, batch):
        state, metrics = step(state, constants, batch)
        return spoil(state), metrics
    return poisoned

synthesis.make_train_step = make_poisoned
sys.exit(cli.main(sys.argv[1:]))
"""


def test_what_is_kept_after_a_loss_that_is_no_number_can_go_on(
    unbroken, tiny_arguments, tmp_path, read_checkpoint
):
    workdir = tmp_path / "run"
    often = command(workdir, [*tiny_arguments, "--config.train.checkpoint_every=1"])
    said = run([sys.executable, "-c", POISONED, *often[3:]], status=2).splitlines()[-1]
    assert said.startswith("mscaflax: error: step 4: ") and "= nan" in said
    assert "the checkpoint of step 3 gives that loss and was set aside in damaged/" in said
    assert "the checkpoint of step 2 is kept" in said and checkpoints_of(workdir)[-1] == 2
    assert "resuming at step 2" in run(often)
    assert_same_checkpoint(workdir, unbroken, 4, read_checkpoint)


# Mounts a small file system that no other program sees; $1 is its place, the rest a training. Its last
# checkpoint is copied to where others see it.
FULL_DISK = """
kept=$1.kept/checkpoints
mount -t tmpfs -o size=6m tmpfs "$1" && place=$1 && shift
"$@"; echo "status $?" >&2
ls "$place/run/checkpoints" >&2
mount -o remount,size=64m "$place" && "$@" --config.train.keep_checkpoints=1
echo "status $?" >&2
mkdir -p "$kept" && cp -r "$place/run/checkpoints/12" "$kept"
"""


@pytest.fixture(scope="module")
def full_disk(tiny_arguments, tmp_path_factory):
    """What a training said until its disk was full, its checkpoints then, what it said with more room, and a
    workdir with its last checkpoint, of step 12."""
    place = tmp_path_factory.mktemp("full")
    mounting = ["unshare", "-rm", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*mounting, f"mount -t tmpfs t {place}"]).returncode:
        pytest.skip("this system lets no user mount a file system")
    often = ["--config.train.checkpoint_every=1", "--config.train.keep_checkpoints=100"]
    line = command(place / "run", [*tiny_arguments, *often, "--config.train.steps=12"])
    done = subprocess.run(
        [*mounting, FULL_DISK, "sh", place, *line], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    full, first, listed, resumed = re.split(r"status (\d+)\n((?:[^\n ]+\n)*)", done.stderr, maxsplit=1)
    assert first != "0" and done.returncode == 0, done.stderr
    return full, listed.split(), resumed, Path(f"{place}.kept")


def test_a_full_disk_loses_nothing(full_disk, tiny_arguments, tmp_path, read_checkpoint):
    _, listed, resumed, kept = full_disk
    assert listed and all(name.isdigit() for name in listed), "something half-written stays"
    assert f"resuming at step {max(map(int, listed))}\n" in resumed and resumed.endswith("status 0\n")
    run(command(tmp_path / "unbroken", [*tiny_arguments, "--config.train.steps=12"]))
    assert_same_checkpoint(kept, tmp_path / "unbroken", 12, read_checkpoint)


def test_a_full_disk_is_said_in_a_line(full_disk):
    full, listed, *_ = full_disk
    message = full.splitlines()[-1]
    # Whichever meets it first: a checkpoint, or the events beside it.
    assert (
        message.startswith("mscaflax: error: the ")
        and "could not be saved" in message
        and "is full" in message
    )
    assert message.endswith(f"goes on from step {max(map(int, listed))}")
