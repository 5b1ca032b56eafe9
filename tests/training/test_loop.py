import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mscaflax.config import load_config
from mscaflax.data.images import read_photo
from mscaflax.errors import UserError
from mscaflax.training import loop, synthesis
from mscaflax.training.loop import train
from mscaflax.training.sharding import make_mesh, replicated
from mscaflax.training.synthesis import SynthesisTask


def checkpoints_of(workdir):
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def assert_same_arrays(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        assert a.tobytes() == b.tobytes(), path


def test_metrics_of_every_step_are_written(tiny_run, read_events):
    events = read_events(tiny_run)
    for name in ("generator", "discriminator", "adversarial", "feature_matching", "perceptual", "l1"):
        assert list(events[f"loss/{name}"]) == [1, 2, 3, 4]
        assert all(np.isfinite(value) for value in events[f"loss/{name}"].values())
    for network in ("generator", "discriminator"):
        for kind in ("gradients", "parameters", "updates"):
            assert all(value > 0 for value in events[f"norm/{network}_{kind}"].values())
    # Of the first step, which holds the compilation, no speed is told.
    for name in ("pairs_per_second", "data_wait_share", "peak_memory_gb"):
        assert list(events[f"train/{name}"]) == [2, 3, 4]
    assert all(value > 0 for value in events["train/pairs_per_second"].values())
    assert all(0 <= value <= 1 for value in events["train/data_wait_share"].values())
    assert all(0.1 < value < 32 for value in events["train/peak_memory_gb"].values())


def test_attention_health_is_written_for_every_scale(tiny_run, read_events):
    events = read_events(tiny_run)
    bounds = {
        "alpha_positions": (0, 1),
        "beta_regions": (1, 4),
        "regions_used": (1, 4),
        "gamma_mean": (0, 1),
        "gamma_spread": (0, 0.5),
        "value_cosine": (-1, 1),
    }
    for scale in range(5):
        for name, (low, high) in bounds.items():
            values = events[f"attention{scale}/{name}"]
            assert list(values) == [2, 4]
            assert all(low - 1e-5 <= value <= high + 1e-5 for value in values.values()), (scale, name, values)


def test_a_sample_grid_is_written(tiny_run, read_events):
    assert [path.name for path in (tiny_run / "samples").iterdir()] == ["00000004.png"]
    grid = read_photo(tiny_run / "samples" / "00000004.png")
    assert grid.ndim == 3 and grid.shape[0] > 6 * 32 and grid.shape[1] > 6 * 32 and grid.std() > 10
    assert list(read_events(tiny_run)["samples"]) == [4]


@pytest.mark.slow  # quicker, the segmenter's test of the same name goes through the same loop
def test_stop_and_resume_equal_the_unbroken_run_bit_for_bit(
    tiny_run, tiny_arguments, tmp_path, read_checkpoint
):
    task = SynthesisTask(load_config(tiny_arguments))

    def terminate(step, metrics):
        if step == 2:
            signal.raise_signal(signal.SIGTERM)

    # The signal comes when step 2 is done; the loop ends with the step after it and saves that.
    assert train(task, tmp_path / "run", terminate) == (3, signal.SIGTERM)
    assert checkpoints_of(tmp_path / "run") == [2, 3]
    steps = []
    assert train(task, tmp_path / "run", lambda step, metrics: steps.append(step)) == (4, None)
    assert steps == [4]
    broken, unbroken = read_checkpoint(tmp_path / "run", 4), read_checkpoint(tiny_run, 4)
    assert_same_arrays(broken, unbroken)
    assert set(unbroken["training"]) >= {"step", "generator", "discriminator", "spectral"}
    assert int(unbroken["training"]["step"]) == 4
    # They are numbers of a training: the network, its average and the checkpoints differ.
    earlier = read_checkpoint(tiny_run, 2)
    for a, b in (
        (unbroken["training"]["generator"], earlier["training"]["generator"]),
        (unbroken["training"]["discriminator"], earlier["training"]["discriminator"]),
        (unbroken["model"]["ema"], unbroken["training"]["generator"]),
    ):
        assert any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert (tmp_path / "run/samples/00000004.png").read_bytes() == (
        tiny_run / "samples/00000004.png"
    ).read_bytes()


def test_a_finished_run_says_so_and_changes_nothing(tiny_run, tiny_arguments, monkeypatch):
    said = []
    monkeypatch.setattr(loop.logging, "info", lambda *message: said.append(message))
    files = {path: path.stat().st_mtime_ns for path in (tiny_run / "checkpoints").rglob("*")}
    assert train(SynthesisTask(load_config(tiny_arguments)), tiny_run) == (4, None)
    assert {path: path.stat().st_mtime_ns for path in (tiny_run / "checkpoints").rglob("*")} == files
    at_end = [message for message in said if "already" in message[0]]
    assert at_end == [("%s is at step %d already: nothing to do", tiny_run, 4)]


PROGRAM = """
import sys, jax
devices, workdir, *arguments = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", int(devices))
from mscaflax.config import load_config
from mscaflax.training.loop import train
from mscaflax.training.synthesis import SynthesisTask
train(SynthesisTask(load_config(arguments)), workdir)
assert jax.device_count() == int(devices)
"""


@pytest.mark.slow
def test_devices_and_parts_change_nothing_but_rounding(light_arguments, tmp_path, read_events):
    """The same global batch, split over devices and in time; each run in a process of its own.

    Several processes, shared parameters and other numbers of devices: tests/training/test_distributed.py.
    """
    # Over the four positions of the coarsest scale, instance normalization raises rounding a hundredfold.
    calm = "--config.model.normalization=position"
    runs = {"one": (1, []), "parts": (2, ["--config.train.accumulate=2", "--config.model.remat=true"])}
    losses = {}
    for name, (devices, changes) in runs.items():
        arguments = [
            *light_arguments,
            "--config.train.health_every=0",
            "--config.train.sample_every=0",
            "--config.train.batch_size=8",
            calm,
            *changes,
        ]
        command = [sys.executable, "-c", PROGRAM, str(devices), str(tmp_path / name), *arguments]
        # A loop's convolutions are plain loops on a CPU, which take minutes if nothing optimizes them.
        environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
        subprocess.run(command, check=True, env=os.environ if name == "one" else environment)
        events = read_events(tmp_path / name)
        losses[name] = {loss: events[loss] for loss in events if loss.startswith("loss/")}
        # Before an update has amplified any rounding.
        norms = {norm: events[norm] for norm in events if norm.endswith("_gradients")}
        losses[name] |= {norm: {1: values[1]} for norm, values in norms.items()}
    one = losses.pop("one")
    assert {name: len(values) for name, values in one.items()} == {
        name: 1 if name.startswith("norm/") else 4 for name in one
    }
    assert sum(name.startswith("norm/") for name in one) == 2
    for run, found in losses.items():
        for name, values in one.items():
            for step, value in values.items():
                # Adam without a first moment amplifies the rounding of each step. So do gradients that pass
                # the discriminator's instance normalizations, each by up to 300 where a region is constant.
                exact = step == 1 and not name.startswith("norm/")
                near = pytest.approx(value, rel=1e-5 if exact else 1e-2, abs=1e-5 if exact else 1e-3)
                assert float(found[name][step]) == near, (run, name, step)


def test_another_config_is_refused_before_anything_is_done(tiny_run, tiny_arguments):
    config = load_config([*tiny_arguments, "--config.model.num_regions=5"])
    with pytest.raises(UserError, match="another config .model.num_regions: 4 != 5"):
        train(SynthesisTask(config), tiny_run)


def test_no_dataset_names_the_command_that_makes_it(tmp_path):
    config = load_config(["--config=tiny", f"--config.data.data_dir={tmp_path}"])
    with pytest.raises(UserError, match=f"mscaflax prepare --name=scenes --data_dir={tmp_path}"):
        train(SynthesisTask(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def first_state(tiny_arguments):
    """A run's first state, on the host; it takes seconds to make."""
    task = SynthesisTask(load_config(tiny_arguments))
    return jax.device_get(task.first_state(task.constants()))


@pytest.fixture
def steps_of(first_state, monkeypatch):
    """`steps_of({step: loss})` puts a counter in the place of the train step; other losses are 1."""

    def install(losses):
        def known(task, constants):
            return jax.device_put(first_state, replicated(task.mesh))

        def make_train_step(*unused):
            count = jax.jit(lambda state: state.replace(step=state.step + 1), donate_argnums=0)
            place = replicated(make_mesh())
            reported = [
                {"loss/generator": jax.device_put(jnp.float32(losses.get(step, 1.0)), place)}
                for step in range(9)
            ]
            done = iter(range(1, 9))
            return lambda state, vgg, batch: (count(state), reported[next(done)])

        monkeypatch.setattr(synthesis, "make_train_step", make_train_step)
        monkeypatch.setattr(SynthesisTask, "first_state", known)

    return install


# A checkpoint whose very next loss is not finite is nothing to go on from.
@pytest.mark.parametrize(
    ("step", "every", "kept", "aside"),
    [(1, 1, [], []), (2, 1, [], [1]), (3, 1, [1], [2]), (4, 1, [2], [3]), (4, 2, [2], []), (3, 2, [], [2])],
)
@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_not_finite_ends_the_run(
    step, every, kept, aside, log_every, steps_of, tiny_arguments, tmp_path
):
    steps_of({step: np.nan if log_every == 1 else np.inf})
    arguments = [f"--config.train.log_every={log_every}", f"--config.train.checkpoint_every={every}"]
    arguments += ["--config.train.health_every=0", "--config.train.sample_every=0"]
    config = load_config([*tiny_arguments, *arguments])
    value = "nan" if log_every == 1 else "inf"
    held = "no other was saved" if aside else "nothing was saved yet"
    held = f"the checkpoint of step {kept[-1]} is kept" if kept else held
    if aside:
        held = f"the checkpoint of step {aside[0]} gives that loss and was set aside in damaged/; {held}"
    with pytest.raises(UserError, match=f"step {step}: loss/generator = {value}; {held}"):
        train(SynthesisTask(config), tmp_path / "run")
    assert checkpoints_of(tmp_path / "run") == kept
    assert [int(path.name) for path in (tmp_path / "run").glob("damaged/*")] == aside


@pytest.mark.parametrize(
    ("health_every", "done_before_the_end"),
    [
        (1, [("save", 1), ("health", 1), ("save", 2), ("health", 2), ("grid", 2), ("health", 3)]),
        (2, [("save", 2), ("health", 2), ("grid", 2)]),
    ],
)
def test_a_program_is_compiled_when_the_step_is_safe(
    health_every, done_before_the_end, steps_of, tiny_arguments, tmp_path, monkeypatch
):
    steps_of({})
    done = []
    save = loop.Checkpoints.save

    class Samples:
        def __init__(self, *unused):
            pass

        def health(self, state, constants):
            done.append(("health", int(state.step)))
            return {}

        def grid(self, state, constants):
            done.append(("grid", int(state.step)))
            return Image.new("RGB", (4, 4))

    def saved(self, step, state):
        done.append(("save", step))
        save(self, step, state)

    monkeypatch.setattr(synthesis, "SynthesisSamples", Samples)
    monkeypatch.setattr(loop.Checkpoints, "save", saved)
    arguments = ["--config.train.checkpoint_every=100", "--config.train.keep_checkpoints=9"]
    arguments += [f"--config.train.health_every={health_every}", "--config.train.sample_every=2"]
    arguments += ["--config.train.steps=6"]
    train(SynthesisTask(load_config([*tiny_arguments, *arguments])), tmp_path / "run")
    # Before a program's first call alone, and at the end.
    assert done[: len(done_before_the_end)] == done_before_the_end
    assert [step for what, step in done if what == "save"] == [*range(health_every, 3), 6]


def test_a_signal_before_the_first_step_saves_nothing(steps_of, tiny_arguments, tmp_path, monkeypatch):
    steps_of({})
    make_samples = synthesis.SynthesisSamples

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return make_samples(*arguments)

    monkeypatch.setattr(synthesis, "SynthesisSamples", interrupted)
    assert train(SynthesisTask(load_config(tiny_arguments)), tmp_path / "run") == (0, signal.SIGINT)
    assert checkpoints_of(tmp_path / "run") == []
