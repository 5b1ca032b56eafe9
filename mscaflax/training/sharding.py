"""The mesh and who holds what on it; one device is a mesh of one."""

import os

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mscaflax.errors import UserError

DATA_AXIS = "data"


def make_mesh(devices=None):
    """A mesh of one axis, `data`, over `devices` (default: all of all processes)."""
    devices = np.asarray(jax.devices() if devices is None else devices)
    return jax.sharding.Mesh(devices.reshape(-1), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def split_cpu(
    batch_size, even, devices=None, key="config.train.batch_size", why="both directions of each pair"
):
    """Makes the CPU several devices of one thread each, before JAX first computes; accelerators do not mind.

    Each device then works through its part of the batch without waiting for other threads after every
    operation: faster than one device of several threads (measured in docs/results.md).

    Args:
      batch_size, even, key, why: as `check_batch_size`'s.
      devices: how many; None: one per core, if the batch can be split so.

    Returns:
      The number of CPU devices asked for; None if JAX was left as it is: it has begun to compute, the user
      has decided by the environment, or the batch does not divide by the cores.

    Raises:
      UserError: the batch does not divide by `devices`.
    """
    multiple = 2 if even else 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = devices or cores
    if batch_size % (count * multiple):
        if devices is None:
            return None
        raise UserError(f"{_batch_size_message(batch_size, count, even, key, why)}, or other --cpu_devices")
    if devices is None and (count == 1 or "JAX_NUM_CPU_DEVICES" in os.environ):
        return None
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has its devices already
        return None
    flags = os.environ.get("XLA_FLAGS", "")
    if count > 1 and "xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    return count


def replicated(mesh):
    """Every device holds the whole array."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh):
    """The first axis is split over the devices."""
    return NamedSharding(mesh, P(DATA_AXIS))


def check_batch_size(
    batch_size, mesh, even, key="config.train.batch_size", why="both directions of each pair"
):
    """Raises UserError unless each device gets the same, whole (if `even`, even) number of examples.

    `key` is the setting's name, and `why` says what comes in twos, for the message.
    """
    devices = mesh.shape[DATA_AXIS]
    if batch_size < 1 or batch_size % (devices * (2 if even else 1)):
        raise UserError(_batch_size_message(batch_size, devices, even, key, why))


def _batch_size_message(batch_size, devices, even, key, why):
    multiple = devices * (2 if even else 1)
    return (
        f"{key} is {batch_size}; give a positive multiple of {multiple} "
        f"(devices: {devices}{f', {why}' if even else ''})"
    )


def share_of_process(batch):
    """This process's part of a dict of arrays that every process has whole, of equal parts."""
    share = len(next(iter(batch.values()))) // jax.process_count()
    begin = jax.process_index() * share
    return {key: value[begin : begin + share] for key, value in batch.items()}


def shard_batch(batch, mesh):
    """This process's part of the global batch (a dict of numpy arrays) → global arrays on the mesh."""
    sharding = batch_sharding(mesh)
    return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()}


def jit_step(step, state_shardings, batch_sharding, replicated):
    """Jits a train step (state, constants, batch) → (state, metrics) for a mesh; the state is donated.

    Args:
      step: the function.
      state_shardings: a tree of shardings like the state, or one for all.
      batch_sharding: sharding of every array of the batch.
      replicated: sharding of the constants and of the metrics.
    """
    return jax.jit(
        step,
        in_shardings=(state_shardings, replicated, batch_sharding),
        out_shardings=(state_shardings, replicated),
        donate_argnums=0,
    )
