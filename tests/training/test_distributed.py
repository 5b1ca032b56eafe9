"""Several real processes on one machine: what they compute, how they stop, what happens if one is lost."""

import base64
import json
import math
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from mscaflax.training.sharding import MIN_SPLIT

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = runpy.run_path(str(ROOT / "launch/local.py"))["PATIENCE_SECONDS"]
pytestmark = pytest.mark.slow
# Nothing but the training: health and samples have programs of their own.
BARE = ["--config.train.health_every=0", "--config.train.sample_every=0"]


def command(processes, workdir, arguments, devices=2):
    # Ever the same global batch.
    return [
        sys.executable, ROOT / "launch/local.py", str(processes), "train", f"--workdir={workdir}", *arguments,
        *BARE, "--config.train.batch_size=8", f"--cpu_devices={devices}",
    ]  # fmt: skip


def run(*arguments, **keywords):
    done = subprocess.run(
        command(*arguments, **keywords), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def start(processes, workdir, arguments):
    """The running launcher of processes with one device each; three steps are made, and one was saved."""
    arguments = [*arguments, "--config.train.steps=100000"]
    program = subprocess.Popen(
        command(processes, workdir, arguments, devices=1),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in program.stderr:
        if "step 3 of" in line:
            break
    return program


def processes_of(program):
    """{process_id: its number} of a launcher."""
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    found = {}
    for pid in map(int, children):
        place = re.search(r"--process_id=(\d+)", Path(f"/proc/{pid}/cmdline").read_text())
        found[int(place[1])] = pid
    return found


def assert_same_checkpoint(one, other, step, read_checkpoint):
    leaves = [jax.tree.leaves(read_checkpoint(folder, step)) for folder in (one, other)]
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def assert_same_training(expected, found, read_checkpoint):
    """Parameters of step 4 equal but for float32 rounding, small beside what the steps have changed."""
    for network in ("generator", "discriminator"):
        before, a, b = (
            np.concatenate([np.ravel(x) for x in jax.tree.leaves(items["training"][network])])
            for items in (
                read_checkpoint(expected, 2),
                read_checkpoint(expected, 4),
                read_checkpoint(found, 4),
            )
        )
        # One unit in the last place for each step.
        rounding = 4 * np.finfo(np.float32).eps * np.linalg.norm(a)
        assert rounding < 0.05 * np.linalg.norm(a - before)
        assert np.linalg.norm(b - a) < rounding


def split_and_whole(workdir, step, item, fsdp, read_checkpoint):
    """The names of the arrays of a checkpoint that are worth splitting: of those that lay split, and of those
    that did not."""
    arrays = jax.tree.leaves_with_path(read_checkpoint(workdir, step)[item])
    shapes = {jax.tree_util.keystr(path, simple=True, separator="."): np.shape(x) for path, x in arrays}
    listed = json.loads((workdir / f"checkpoints/{step}/{item}/_sharding").read_text())
    places = {base64.b64decode(name).decode(): json.loads(place) for name, place in listed.items()}
    assert places.keys() == shapes.keys()
    split, whole = set(), set()
    for name, shape in shapes.items():
        if math.prod(shape) >= MIN_SPLIT and any(length % fsdp == 0 for length in shape):
            (split if "fsdp" in places[name]["partition_spec"] else whole).add(name)
    return split, whole


@pytest.fixture(scope="module")
def sgd(light_arguments):
    """Plain gradient descent, which does not amplify rounding as Adam does."""
    # Wide enough at the coarse scales to have arrays that are worth splitting.
    wide = "--config.model.generator_channels=(8,8,16,48,48)"
    # Over the four positions of the coarsest scale, instance normalization amplifies rounding a hundredfold.
    calm = "--config.model.normalization=position"
    # Gradients have norms of about 200 and 1.
    rates = ["--config.optimizer.generator_rate=5e-6", "--config.optimizer.discriminator_rate=1e-4"]
    return [*light_arguments, "--config.optimizer.kind=sgd", wide, calm, *rates]


@pytest.fixture(scope="module")
def alone(sgd, tmp_path_factory):
    """The workdir of the same training in one process with one device."""
    workdir = tmp_path_factory.mktemp("distributed") / "alone"
    run(1, workdir, sgd, devices=1)
    return workdir


@pytest.mark.parametrize("fsdp", [1, 2])
def test_two_processes_compute_what_one_does(fsdp, sgd, alone, tmp_path, read_checkpoint):
    run(2, tmp_path / "run", [*sgd, f"--config.mesh.fsdp={fsdp}"])
    assert_same_training(alone, tmp_path / "run", read_checkpoint)
    # The parameters (plain descent remembers nothing) and their moving average.
    for item in ("training", "model"):
        split, whole = split_and_whole(tmp_path / "run", 4, item, fsdp, read_checkpoint)
        assert not (whole if fsdp > 1 else split)
        assert split or whole


def test_a_checkpoint_goes_on_with_more_and_with_fewer_processes(sgd, alone, tmp_path, read_checkpoint):
    workdir = tmp_path / "run"
    run(2, workdir, [*sgd, "--config.mesh.fsdp=4", "--config.train.steps=1"])
    run(1, workdir, [*sgd, "--config.train.steps=2"])
    said = run(2, workdir, [*sgd, "--config.mesh.fsdp=2"])
    assert "resuming at step 2" in said
    assert_same_training(alone, workdir, read_checkpoint)


@pytest.fixture(scope="module")
def unbroken(light_arguments, tmp_path_factory):
    """Gives, for a step, the workdir of two processes with one device each, which nobody disturbed.

    It has kept every step, up to that one at least. A run that is ended early has come a few steps further
    than three; if more than 12 are asked for, this one goes on.
    """
    workdir = tmp_path_factory.mktemp("distributed") / "unbroken"
    every = ["--config.train.checkpoint_every=1", "--config.train.keep_checkpoints=100000"]
    trained = 0

    def until(step):
        nonlocal trained
        if step > trained:
            trained = max(step, 12)
            run(2, workdir, [*light_arguments, *every, f"--config.train.steps={trained}"], devices=1)
        return workdir

    return until


def test_sigterm_to_one_stops_all_after_the_same_step(light_arguments, unbroken, tmp_path, read_checkpoint):
    arguments = [*light_arguments, "--config.train.checkpoint_every=100000"]
    program = start(2, tmp_path / "run", arguments)
    try:
        os.kill(processes_of(program)[1], signal.SIGTERM)
        started = time.monotonic()
        said = program.communicate(timeout=120)[1]
    finally:
        program.kill()
    assert program.returncode == 0, said
    assert time.monotonic() - started < 30
    step = int(re.search(r"stopped and saved at step (\d+)", said)[1])
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == [str(step)]

    steps = f"--config.train.steps={step + 2}"
    said = run(2, tmp_path / "run", [*arguments, steps], devices=1)
    assert f"resuming at step {step}" in said
    assert_same_checkpoint(tmp_path / "run", unbroken(step + 2), step + 2, read_checkpoint)


@pytest.mark.parametrize("lost", [0, 1])
def test_if_one_is_killed_the_other_ends_and_says_why(
    lost, light_arguments, unbroken, tmp_path, read_checkpoint
):
    workdir = tmp_path / "run"
    program = start(2, workdir, [*light_arguments, "--config.train.checkpoint_every=1"])
    try:
        left = processes_of(program)[1 - lost]
        os.kill(processes_of(program)[lost], signal.SIGKILL)
        started = time.monotonic()
        said = program.communicate(timeout=180)[1]
    finally:
        program.kill()
    # Sooner than the launcher loses its patience and kills it: the other one has ended by itself.
    assert time.monotonic() - started < PATIENCE_SECONDS - 5
    assert program.returncode == 128 + signal.SIGKILL
    assert not Path(f"/proc/{left}").exists()
    assert "another process of the run is gone" in said or "another task died" in said, said

    last = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    said = run(2, workdir, [*light_arguments, f"--config.train.steps={last + 1}"], devices=1)
    assert f"resuming at step {last}" in said
    assert_same_checkpoint(workdir, unbroken(last + 1), last + 1, read_checkpoint)


def test_the_losses_of_the_shipped_settings_are_those_of_one_process(
    light_arguments, unbroken, tmp_path, read_events
):
    """Adam's every update amplifies rounding, and in one process, too; over these steps to 9e-5 when seen.

    With all of the toy network, attention among four positions adds to that: 2e-3. Over more steps, at lower
    rates: benchmarks/topologies.py.
    """
    run(1, tmp_path / "run", light_arguments, devices=1)
    alone, together = read_events(tmp_path / "run"), read_events(unbroken(4))
    names = [name for name in alone if name.startswith("loss/")]
    assert len(names) > 5
    for name in names:
        assert list(alone[name]) == [1, 2, 3, 4]
        for step, value in alone[name].items():
            assert together[name][step] == pytest.approx(value, rel=1e-3), (name, step)


def test_a_mistake_of_the_user_ends_all_with_its_message(tiny_arguments, tmp_path):
    arguments = [*tiny_arguments, "--config.mesh.fsdp=3"]
    done = subprocess.run(
        command(2, tmp_path / "run", arguments), capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 2
    assert "config.mesh.fsdp is 3; it must divide the number of devices, 4" in done.stderr
    assert "Traceback" not in done.stderr
