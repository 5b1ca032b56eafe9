"""The one training loop: data, steps, numbers, pictures, checkpoints, a clean stop."""

import collections
import concurrent.futures
import contextlib
import io
import os
import resource
import signal
import sys
import threading
import time

import jax
import numpy as np
from absl import logging

from mscaflax.data.tensorflow import import_tensorflow
from mscaflax.errors import UserError
from mscaflax.files import expanded, write_atomically
from mscaflax.training.checkpoint import Checkpoints, disk_is_full, exclusive, full_disk_error
from mscaflax.training.description import saved_steps
from mscaflax.training.processes import (
    await_others,
    compiled_together,
    ending_if_one_is_lost,
    is_first,
    told_to_stop,
)
from mscaflax.training.sharding import shard_batch

_RSS_PER_GB = 1e9 if sys.platform == "darwin" else 1e9 / 1024


class StopRequest:
    """Remembers a SIGINT or SIGTERM, so that the loop can finish its step and save; a context manager.

    A second Ctrl-C interrupts at once. Outside the main thread, signals are left alone. Where several
    processes train, JAX's runtime takes SIGTERM and lets all of them know (`processes.told_to_stop`); a
    Ctrl-C is handed on as one.
    """

    def __init__(self):
        self.signal = None
        self._previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            alone = jax.process_count() == 1
            for number in (signal.SIGINT, signal.SIGTERM) if alone else (signal.SIGINT,):
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
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def after(self, step):
        """Whether to stop after this step; the signal is remembered. To be asked once per step."""
        if jax.process_count() == 1:
            return self.signal is not None
        stopping = told_to_stop(step)
        if stopping and self.signal is None:
            self.signal = signal.SIGTERM
        return stopping


def train(task, workdir, on_step=lambda step, metrics: None):
    """Trains until `task.settings.steps`, or resumes what `workdir` holds and does the same.

    Args:
      task: what is trained, a `mscaflax.training.task.Task`.
      workdir: folder of the run: config, classes, checkpoints, TensorBoard events, sample grids.
      on_step: called with (step, metrics) after each logged step, and with (step, None) after each other one.

    Returns:
      (the number of steps done, the signal that stopped the run or None).

    Raises:
      UserError: the workdir holds another run, or a loss is not finite.
    """
    workdir = expanded(workdir).absolute()
    with contextlib.ExitStack() as stack:
        if is_first():
            stack.enter_context(exclusive(workdir))
        # Else the others would describe their run in a workdir that another one holds.
        await_others("the workdir is held")
        task.store_description(workdir)
        stack.enter_context(_saying_that_the_disk_is_full(workdir))
        stop = stack.enter_context(StopRequest())
        checkpoints = stack.enter_context(Checkpoints(workdir, task.settings.keep_checkpoints))
        constants = task.constants()
        step = checkpoints.latest_sound()
        if step is None:
            state, step = task.first_state(constants), 0
        else:
            logging.info("resuming at step %d", step)
            state = checkpoints.restore(step, task.abstract_state())
        if step >= task.settings.steps:
            logging.info("%s is at step %d already: nothing to do", workdir, step)
            return step, None
        writers = stack.enter_context(contextlib.closing(_Writers(workdir)))
        run = _Run(task, constants, checkpoints, writers, workdir)
        with ending_if_one_is_lost():
            return run(state, step, stop, on_step)


@contextlib.contextmanager
def _saying_that_the_disk_is_full(workdir):
    """One UserError, whatever writer meets the full disk first and whatever the others make of it then."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not disk_is_full(error):
            raise
        # Of a checkpoint that failed before: it says more.
        earlier = error
        while earlier is not None and not isinstance(earlier, UserError):
            earlier = earlier.__cause__ or earlier.__context__
        if earlier is not None:
            raise earlier from None
        kept = saved_steps(workdir)
        raise full_disk_error(workdir, "the run's numbers", kept[-1] if kept else None) from error


class _Writers:
    """TensorBoard gets every number and picture, the console the main ones; only the first process writes.

    They are written in order by a thread of their own, since a picture takes a while. clu's asynchronous
    writers would do that too, but print the traceback of an error that ends in one line.
    """

    def __init__(self, workdir):
        import_tensorflow()  # before clu does it, in its own way
        from clu import metric_writers

        self._writer = metric_writers.create_default_writer(
            workdir / "tensorboard", just_logging=jax.process_index() > 0, asynchronous=False
        )
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="writers")
        self._waiting = collections.deque()

    def scalars(self, step, numbers):
        self._later(self._writer.write_scalars, step, numbers)

    def images(self, step, pictures):
        self._later(self._writer.write_images, step, pictures)

    def _later(self, write, *arguments):
        """Queues a call; raises what an earlier one has raised."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(write, *arguments))

    def close(self):
        self._thread.shutdown()
        while self._waiting:
            self._waiting.popleft().result()
        self._writer.close()


class _Run:
    """The loop itself, with what it writes to."""

    def __init__(self, task, constants, checkpoints, writers, workdir):
        self._task, self._constants = task, constants
        self._checkpoints, self._writers, self._workdir = checkpoints, writers, workdir
        self._step_fn, self._samples = (
            compiled_together(task.make_step(), "the step"),
            task.make_samples(),
        )
        self._pending = []
        self._logged_at = None
        self._compiled = set()

    def __call__(self, state, step, stop, on_step):
        settings = self._task.settings
        batches = self._task.batches(step)
        logging.info("compiling the step: the first one takes a minute or more")
        # Asked once per step: a signal that comes later, during a picture or a save, ends the next step.
        stopping = stop.signal is not None and jax.process_count() == 1
        while step < settings.steps and not stopping:
            batch = shard_batch(next(batches), self._task.mesh)
            with jax.transfer_guard("disallow"):
                state, metrics = self._step_fn(state, self._constants, batch)
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
                self._finite(*self._pending[-2], only=self._task.losses)
            stopping = stop.after(step)
            last = step == settings.steps or stopping
            numbers = None
            if last or step % settings.log_every == 0:
                numbers = self._flush(step, batches)
            # A run that was told to stop has no time for pictures.
            measuring = not stopping and _is_due(step, settings.health_every, last)
            drawing = not stopping and _is_due(step, settings.sample_every, last)
            saving = last or step % settings.checkpoint_every == 0
            # No signal is heard while a program is compiled, and whoever sent it may not wait that long.
            due = {name for name, runs in (("health", measuring), ("grid", drawing)) if runs}
            saving |= not due <= self._compiled
            self._compiled |= due
            if saving or measuring or drawing:
                self._check_finite()  # so that the steps in flight are done, and in the steps' time
            began = time.perf_counter()
            # First what must not be lost.
            if saving:
                self._checkpoints.save(step, state)
            if measuring:
                self._writers.scalars(step, _to_host(self._samples.health(state, self._constants)))
            if drawing:
                self._write_grid(step, state)
            # Pictures and checkpoints have their own time; the next speed is the steps' alone.
            if numbers is not None:
                self._restart_clock(batches)
            else:
                self._logged_at += time.perf_counter() - began
            on_step(step, numbers)
        self._checkpoints.wait()
        return step, stop.signal if step < settings.steps else None

    def _flush(self, step, batches):
        """Writes the means since the last call; raises UserError at the first loss that is not finite."""
        rows = self._check_finite()
        self._pending = []
        if not rows:
            return None
        seconds = time.perf_counter() - self._logged_at
        numbers = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        speed = len(rows) * self._task.settings.batch_size / seconds
        numbers[f"train/{self._task.unit}_per_second"] = speed
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
            aside = ""
            if kept == step - 1:
                # Its own losses were finite, but what it computes next is not: nothing can go on from it.
                aside = f"the checkpoint of step {kept} gives that loss and was set aside in damaged/; "
                kept = self._checkpoints.set_aside([kept])
            held = "no other was saved" if aside else "nothing was saved yet"
            held = held if kept is None else f"the checkpoint of step {kept} is kept"
            raise UserError(f"step {step}: {', '.join(bad[:3])}; {aside}{held}: {self._task.advice}")
        return row

    def _write_grid(self, step, state):
        grid = self._samples.grid(state, self._constants)
        if is_first():
            folder = self._workdir / "samples"
            folder.mkdir(exist_ok=True)
            picture = io.BytesIO()
            grid.save(picture, "PNG")
            write_atomically(folder / f"{step:08d}.png", picture.getvalue())
            self._writers.images(step, {"samples": np.asarray(grid)[None]})


def _is_due(step, every, last):
    """Whether something is done after this step; with `every` 0 it never is."""
    return every > 0 and (last or step % every == 0)


def _to_host(metrics):
    return {key: float(value) for key, value in jax.device_get(metrics).items()}
