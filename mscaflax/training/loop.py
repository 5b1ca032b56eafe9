"""The one training loop: data, steps, numbers, pictures, checkpoints, a clean stop."""

import contextlib
import io
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
from absl import logging
from clu import metric_writers

from mscaflax.data.datasets import open_dataset
from mscaflax.data.grids import Column, picture_grid
from mscaflax.data.pipeline import evaluation_pairs, pair_batches
from mscaflax.errors import UserError
from mscaflax.files import write_atomically
from mscaflax.nets.vgg import load_vgg16
from mscaflax.training.checkpoint import Checkpoints, exclusive, store_description
from mscaflax.training.experiment import build_experiment
from mscaflax.training.health import attention_health
from mscaflax.training.sharding import (
    batch_sharding,
    check_batch_size,
    make_mesh,
    replicated,
    shard_batch,
)
from mscaflax.training.state import init_state, measure_statistics, neutral_statistics
from mscaflax.training.step import example_keys, make_train_step, synthesize

SAMPLES = 6
_COUNTS = (
    "steps", "log_every", "health_every", "sample_every", "checkpoint_every", "keep_checkpoints",
    "statistics_photos",
)  # fmt: skip
_RSS_PER_GB = 1e9 if sys.platform == "darwin" else 1e9 / 1024


class StopRequest:
    """Remembers a SIGINT or SIGTERM, so that the loop can finish its step and save; a context manager.

    A second Ctrl-C interrupts at once. Outside the main thread, signals are left alone.
    """

    def __init__(self):
        self.signal = None
        self._previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *unused):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        del frame
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        # Logging may be in the middle of a line; a compilation can keep the loop from saying anything.
        os.write(2, b"stopping after this step, which will be saved; Ctrl-C again stops at once\n")


def train(config, workdir, on_step=lambda step, metrics: None):
    """Trains until `config.train.steps`, or resumes what `workdir` holds and does the same.

    Args:
      config: a ConfigDict like configs/base.py.
      workdir: folder of the run: config, classes, checkpoints, TensorBoard events, sample grids.
      on_step: called with (step, metrics) after each logged step, and with (step, None) after each other one.

    Returns:
      (the number of steps done, the signal that stopped the run or None).

    Raises:
      UserError: no dataset, a config that does not fit it or the workdir, or a loss that is not finite.
    """
    workdir = Path(workdir).expanduser().absolute()
    for key in _COUNTS:
        if config.train[key] < 1:
            raise UserError(f"config.train.{key} is {config.train[key]}; it must be at least 1")
    dataset = open_dataset(config.data.name, config.data.data_dir or None)
    experiment = build_experiment(config, dataset.classes.num_classes)
    mesh = make_mesh()
    check_batch_size(config.train.batch_size, mesh, even=config.data.both_directions)
    source = dataset.source(config.data.train_split)
    val_source = dataset.source(config.data.val_split)

    if config.data.data_dir and "://" not in config.data.data_dir:
        # Stored beside the checkpoints, to be read from any folder.
        config = config.copy_and_resolve_references()
        config.data.data_dir = str(Path(config.data.data_dir).expanduser().absolute())

    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(exclusive(workdir))
        store_description(workdir, config, dataset.classes, dataset.metadata.get("fingerprint"))
        stop = stack.enter_context(StopRequest())
        checkpoints = stack.enter_context(Checkpoints(workdir, config.train.keep_checkpoints))
        vgg = jax.device_put(load_vgg16(), replicated(mesh))
        state, step = _start(config, experiment, mesh, vgg, source, checkpoints)
        if step >= config.train.steps:
            logging.info("%s is at step %d already: nothing to do", workdir, step)
            return step, None
        writers = stack.enter_context(contextlib.closing(_Writers(workdir)))
        step_fn = make_train_step(experiment, replicated(mesh), batch_sharding(mesh), replicated(mesh))
        samples = _Samples(config, experiment, mesh, val_source, dataset.classes)
        run = _Run(config, experiment, mesh, vgg, checkpoints, writers, samples, workdir)
        return run(state, step, step_fn, source, stop, on_step)


def _start(config, experiment, mesh, vgg, source, checkpoints):
    """The state to begin with and its step: the last checkpoint, or a new one."""
    shardings = replicated(mesh)
    latest = checkpoints.latest()
    if latest is not None:
        abstract = jax.eval_shape(lambda: init_state(experiment, neutral_statistics()))
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings), abstract
        )
        logging.info("resuming at step %d", latest)
        return checkpoints.restore(latest, abstract), latest
    # Every process measures the same photos, so that all have the same numbers.
    count = min(config.train.statistics_photos, 16)
    batches = pair_batches(
        source,
        size=config.data.size,
        num_classes=experiment.network.num_classes,
        batch_size=count,
        seed=config.seed,
        side_range=tuple(config.data.side_range),
    )
    images = (next(batches)["image"] for _ in range(-(-config.train.statistics_photos // count)))
    statistics = measure_statistics(vgg, images)
    # Random draws are unrolled code, which runs once here and takes long to optimize.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    init = jax.jit(
        lambda statistics: init_state(experiment, statistics),
        out_shardings=shardings,
        compiler_options=options,
    )
    return init(statistics), 0


class _Writers:
    """TensorBoard gets every number and picture, the console the main ones; only the first process writes."""

    def __init__(self, workdir):
        self._writer = metric_writers.create_default_writer(
            workdir / "tensorboard", just_logging=jax.process_index() > 0, asynchronous=True
        )
        self.scalars = self._writer.write_scalars
        self.images = self._writer.write_images

    def close(self):
        self._writer.close()


class _Samples:
    """Frozen validation pairs, synthesized again and again: sample grids and attention health."""

    def __init__(self, config, experiment, mesh, source, classes):
        # At least one sample per device, and the same number on each.
        devices = mesh.size
        count = -(-SAMPLES // devices) * devices
        pairs = evaluation_pairs(
            source,
            count=count,
            size=config.data.size,
            num_classes=classes.num_classes,
            seed=config.seed,
            side_range=tuple(config.data.side_range),
        )
        self._classes, self._pairs = classes, pairs
        keys = ("label", "exemplar", "exemplar_label")
        local = slice(None)
        if jax.process_count() > 1:
            share = count // jax.process_count()
            local = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
        self._batch = shard_batch({key: pairs[key][local] for key in keys}, mesh)
        # The same samples with the photos handed on by one: what does the exemplar change?
        swapped = {"label": pairs["label"]} | {key: np.roll(pairs[key], -1, axis=0) for key in keys[1:]}
        self._swapped = shard_batch({key: value[local] for key, value in swapped.items()}, mesh)

        def run(params, statistics, vgg, batch):
            noise = example_keys(jax.random.key(0), count)
            synthesis = synthesize(
                experiment.network, params, statistics, vgg, batch, noise, None, experiment.dtype
            )
            return synthesis.image, attention_health(synthesis.alignments)

        # One program for both: compiling takes longer than running.
        self._run = jax.jit(run, out_shardings=replicated(mesh))

    def health(self, state, vgg):
        """attention_health of the moving average on the samples, on the device."""
        return self._run(state.ema, state.statistics, vgg, self._batch)[1]

    def grid(self, state, vgg):
        """The samples as a Pillow picture: label map, target, exemplar, output, other exemplar, output."""
        output, other = (
            np.asarray(self._run(state.ema, state.statistics, vgg, batch)[0])
            for batch in (self._batch, self._swapped)
        )
        pairs = {key: value[:SAMPLES] for key, value in self._pairs.items()}
        return picture_grid(
            [
                Column("label map", self._classes.colorize(pairs["label"]), flat=True),
                Column("target", pairs["image"]),
                Column("exemplar", pairs["exemplar"]),
                Column("output", output[:SAMPLES]),
                Column("another exemplar", np.roll(self._pairs["exemplar"], -1, axis=0)[:SAMPLES]),
                Column("its output", other[:SAMPLES]),
            ]
        )


class _Run:
    """The loop itself, with what it writes to."""

    def __init__(self, config, experiment, mesh, vgg, checkpoints, writers, samples, workdir):
        self._config, self._experiment, self._mesh, self._vgg = config, experiment, mesh, vgg
        self._checkpoints, self._writers, self._samples = checkpoints, writers, samples
        self._workdir = workdir
        self._pending = []
        self._logged_at = None

    def __call__(self, state, step, step_fn, source, stop, on_step):
        train = self._config.train
        batches = pair_batches(
            source,
            size=self._config.data.size,
            num_classes=self._experiment.network.num_classes,
            batch_size=train.batch_size,
            seed=self._config.seed,
            start_step=step,
            self_share=self._config.data.self_share,
            side_range=tuple(self._config.data.side_range),
            flip=self._config.data.flip,
            both_directions=self._config.data.both_directions,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        # Asked once per step: a signal that comes later, during a picture or a save, ends the next step.
        stopping = stop.signal is not None
        while step < train.steps and not stopping:
            batch = shard_batch(next(batches), self._mesh)
            with jax.transfer_guard("disallow"):
                state, metrics = step_fn(state, self._vgg, batch)
            step += 1
            if self._logged_at is None:
                # Compilation and the pipeline's start are no part of the speed.
                jax.block_until_ready(metrics)
                self._restart_clock(batches)
                self._writers.scalars(step, self._finite(step, metrics))
            else:
                self._pending.append((step, metrics))
            if len(self._pending) > 1:
                # Two steps in flight keep the device busy; more would only hold memory.
                self._finite(*self._pending[-2], only=("loss/generator", "loss/discriminator"))
            stopping = stop.signal is not None
            last = step == train.steps or stopping
            numbers = None
            if last or step % train.log_every == 0:
                numbers = self._flush(step, batches)
            # First what must not be lost; a run that was told to stop has no time for pictures.
            if last or step % train.checkpoint_every == 0:
                self._check_finite()
                self._checkpoints.save(step, state)
            if not stopping and (last or step % train.health_every == 0):
                self._writers.scalars(step, _to_host(self._samples.health(state, self._vgg)))
            if not stopping and (last or step % train.sample_every == 0):
                self._write_grid(step, state)
            if numbers is not None:
                # Pictures and checkpoints have their own time; the next speed is the steps' alone.
                self._restart_clock(batches)
            on_step(step, numbers)
        self._checkpoints.wait()
        return step, stop.signal if step < train.steps else None

    def _flush(self, step, batches):
        """Writes the means since the last call; raises UserError at the first loss that is not finite."""
        rows = self._check_finite()
        self._pending = []
        if not rows:
            return None
        seconds = time.perf_counter() - self._logged_at
        numbers = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        numbers["train/pairs_per_second"] = len(rows) * self._config.train.batch_size / seconds
        numbers["train/data_wait_share"] = batches.take_waited_seconds() / seconds
        numbers["train/peak_memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _RSS_PER_GB
        self._writers.scalars(step, numbers)
        return numbers

    def _restart_clock(self, batches):
        self._logged_at = time.perf_counter()
        batches.take_waited_seconds()

    def _check_finite(self):
        return [self._finite(step, metrics) for step, metrics in self._pending]

    def _finite(self, step, metrics, only=None):
        """The metrics (`only` those named) as floats; raises UserError if one is not finite."""
        row = _to_host({key: value for key, value in metrics.items() if only is None or key in only})
        bad = [f"{key} = {row[key]}" for key in sorted(row) if not np.isfinite(row[key])]
        if bad:
            kept = self._checkpoints.latest()
            held = "nothing was saved yet" if kept is None else f"the checkpoint of step {kept} is kept"
            raise UserError(
                f"step {step}: {', '.join(bad[:3])}; {held}: begin again in another "
                "--workdir with lower config.optimizer.generator_rate and discriminator_rate"
            )
        return row

    def _write_grid(self, step, state):
        grid = self._samples.grid(state, self._vgg)
        if jax.process_index() == 0:
            folder = self._workdir / "samples"
            folder.mkdir(exist_ok=True)
            picture = io.BytesIO()
            grid.save(picture, "PNG")
            write_atomically(folder / f"{step:08d}.png", picture.getvalue())
            self._writers.images(step, {"samples": np.asarray(grid)[None]})


def _to_host(metrics):
    return {key: float(value) for key, value in jax.device_get(metrics).items()}
