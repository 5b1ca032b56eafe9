"""Several processes that train one model, by JAX's own runtime: how they meet, stop and fail together.

Each process has its own devices and reads its own part of every batch; `jax.distributed` connects them. On
the CPU their collectives run over gloo.
"""

import contextlib
import os
import sys
import traceback

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from mscaflax.errors import UserError

# A process that is silent for so long counts as gone, and the others end.
HEARTBEAT_SECONDS = 30
# To find each other: the slowest process may still be copying its environment.
CONNECT_SECONDS = 300
# For each other at such a place: one may still compile.
BARRIER_SECONDS = 1800
# What the runtime's errors hold when another process does not answer.
_LOST = ("Gloo", "gloo", "NCCL", "heartbeat", "Barrier", "UNAVAILABLE", "DEADLINE_EXCEEDED", "Connection")


def connect(address=None, processes=None, process=None):
    """Connects this process with the others of the run; before JAX first computes.

    Args:
      address: "HOST:PORT" of process 0, reachable from all; None where the cluster tells (Cloud TPU, Slurm,
        Open MPI, Kubernetes).
      processes: their number; None likewise.
      process: which of them this is, from 0; None likewise.

    Raises:
      UserError: the cluster tells nothing, or the others were not found in time.
    """
    if processes is not None and not 0 <= (process or 0) < processes:
        raise UserError(f"process {process} of {processes} does not exist: count from 0")
    try:
        jax.distributed.initialize(
            address,
            processes,
            process,
            initialization_timeout=CONNECT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            # A process that ends by an error does not wait for those that still compute.
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        if address is not None:
            raise UserError(f"this process cannot take its place in the run: {_first_line(error)}") from None
        raise UserError(
            f"no cluster was found that tells this process its place ({error}): give --coordinator_address, "
            "--num_processes and --process_id"
        ) from None
    except (jax.errors.JaxRuntimeError, RuntimeError) as error:
        raise UserError(f"the processes of the run did not find each other ({_first_line(error)})") from None


def is_first():
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def told_to_stop(step):
    """Whether all processes stop after this step, since one of them got SIGTERM; asked after every step.

    They agree on a step that none has passed. With one process, always False: see `loop.StopRequest`.
    """
    return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step)


def agreed(value):
    """Process 0's value of an integer, in all processes; the others' is ignored."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def await_others(name):
    """Returns when all processes have come here, each `name` anew; without a use of the devices."""
    multihost.get_barrier_sync_fn()(key=name, timeout_ms=1000 * BARRIER_SECONDS)


def compiled_together(function, name):
    """A jitted function that all processes have compiled before any of them runs it.

    Collectives give up soon (gloo after half a minute) on a process that still compiles. With one process,
    the function itself.
    """
    if jax.process_count() == 1:
        return function
    compiled = []

    def run(*arguments):
        if not compiled:
            compiled.append(function.lower(*arguments).compile())
            await_others(f"{name} is compiled")
        return compiled[0](*arguments)

    return run


@contextlib.contextmanager
def failing_together():
    """Ends this process at once after an error that the others do not share, and says what happened.

    A process that ends in the usual way waits for all others, which would wait for it in their next sum over
    the devices. With one process, errors pass.
    """
    try:
        yield
    except BaseException as error:
        if jax.distributed.is_initialized() and jax.process_count() > 1:
            _end(error)
        raise


@contextlib.contextmanager
def ending_if_one_is_lost():
    """As `failing_together`, but for errors of the runtime alone: others unwind, and finish their saves."""
    try:
        yield
    except Exception as error:
        if jax.process_count() > 1 and _runtime_error(error):
            _end(error)
        raise


def _runtime_error(error):
    """The error of JAX's runtime that `error` is, or comes from; None."""
    while error is not None and not isinstance(error, jax.errors.JaxRuntimeError):
        error = error.__cause__ or error.__context__
    return error


def _end(error):
    """Says what happened and ends the process, without the runtime's farewell to the others."""
    who, status, found = f"mscaflax, process {jax.process_index()}", 2, _runtime_error(error)
    if isinstance(error, UserError):
        said = f"error: {error}"
    elif isinstance(error, KeyboardInterrupt):
        said, status = "interrupted", 130
    elif found is not None and any(word in str(found) for word in _LOST):
        said = (
            "error: another process of the run is gone or cannot be reached: start all of them again, the "
            f"run goes on from its last checkpoint ({_first_line(found)})"
        )
    else:
        said, status = "".join(traceback.format_exception(error)), 1
    print(f"{who}: {said}", file=sys.stderr)
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(status)


def _first_line(error):
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
