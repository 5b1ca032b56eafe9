"""Several processes that train one model, by JAX's own runtime: how they meet, stop and fail together.

Each process has its own devices and reads its own part of every batch; `jax.distributed` connects them. On
the CPU their collectives run over gloo.
"""

import contextlib
import logging
import os
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

from mscaflax.errors import UserError

# A process that is silent for so long counts as gone, and the others end.
HEARTBEAT_SECONDS = 30
# To find each other: the slowest process may still be copying its environment.
CONNECT_SECONDS = 300


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
    """Returns when all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def failing_together():
    """Turns the loss of another process into a UserError, and ends this process at once after any error.

    A process that ends in the usual way waits for all others, which would wait for it in their next sum over
    the devices. To be entered before `connect`.
    """
    try:
        yield
    except BaseException as error:
        if _connected() and jax.process_count() > 1:
            _end(error)
        raise


def _connected():
    return jax.distributed.is_initialized()


def _end(error):
    """Says what happened and ends the process, without the runtime's farewell to the others."""
    who = f"mscaflax, process {jax.process_index()}"
    status = 2
    if isinstance(error, UserError):
        print(f"{who}: error: {error}", file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        print(f"{who}: interrupted", file=sys.stderr)
        status = 130
    elif isinstance(error, jax.errors.JaxRuntimeError):
        print(
            f"{who}: error: another process of the run is gone or cannot be reached: start all of them "
            f"again, the run goes on from its last checkpoint ({_first_line(error)})",
            file=sys.stderr,
        )
    else:
        logging.getLogger(__name__).error("%s", who, exc_info=error)
        status = 1
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(status)


def _first_line(error):
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
