"""The mesh and who holds what on it; one device is a mesh of one.

The mesh has two axes. Every device has its own part of the batch. Along `data` they all hold the same
parameters; along `fsdp` each holds a part of the large ones, of their moving average and of the optimizers'
state. A step gathers the parameters that it uses; gradients are whole (Rajbhandari et al., "ZeRO", SC 2020).
"""

import math
import os

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mscaflax.errors import UserError

DATA_AXIS, PARAMETER_AXIS = "data", "fsdp"
BATCH_AXES = (DATA_AXIS, PARAMETER_AXIS)
# Smaller arrays are whole everywhere: gathering them would take longer than they are worth.
MIN_SPLIT = 2**14


def make_mesh(devices=None, fsdp=1):
    """The mesh of `devices` (default: all of all processes), `fsdp` of which share the parameters.

    Raises:
      UserError: `fsdp` does not divide the number of devices.
    """
    # Each process reads one slice of the batch: its devices must stand side by side.
    devices = sorted(
        jax.devices() if devices is None else devices, key=lambda device: (device.process_index, device.id)
    )
    devices = np.asarray(devices)
    check_fsdp(fsdp, devices.size)
    return jax.sharding.Mesh(devices.reshape(-1, fsdp), BATCH_AXES, axis_types=(AxisType.Auto,) * 2)


def check_fsdp(fsdp, devices):
    """Raises UserError unless `fsdp` divides the number of devices."""
    if fsdp < 1 or devices % fsdp:
        raise UserError(
            f"config.mesh.fsdp is {fsdp}; it must divide the number of devices, {devices} "
            "(on CPUs see --cpu_devices)"
        )


def state_shardings(mesh, init):
    """Where each array of a state lives.

    An array of at least MIN_SPLIT numbers is split over `fsdp` along the longest of the axes that divide, the
    last of several; every other one is whole on every device.

    Args:
      mesh: of `make_mesh`.
      init: a function without arguments that returns the state; it is not computed.

    Returns:
      One sharding for all, or a tree of shardings like the state.
    """
    parts, whole = mesh.shape[PARAMETER_AXIS], replicated(mesh)
    if parts == 1:
        return whole

    def place(x):
        axes = [axis for axis, length in enumerate(x.shape) if length % parts == 0]
        if math.prod(x.shape) < MIN_SPLIT or not axes:
            return whole
        longest = max(axes, key=lambda axis: (x.shape[axis], axis))
        return NamedSharding(mesh, P(*[None] * longest, PARAMETER_AXIS))

    return jax.tree.map(place, jax.eval_shape(init))


def gather(tree, mesh):
    """Inside a jitted function: every array of the tree whole on every device of the mesh."""
    if mesh is None or mesh.shape[PARAMETER_AXIS] == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def microbatches(tree, count, mesh=None):
    """Inside a jitted function: cuts a batch into parts that are worked through one after the other.

    Each device's examples stay where they are, and those beside each other stay together, so that the parts
    hold whole pairs.

    Args:
      tree: arrays [b, ...], b a multiple of count times the number of devices.
      count: of parts.
      mesh: the devices that share the batch; None for one device.

    Returns:
      The tree with arrays [count, b/count, ...].
    """
    devices = 1 if mesh is None else mesh.size

    def cut(x):
        x = x.reshape(devices, count, -1, *x.shape[1:]).swapaxes(0, 1)
        x = x.reshape(count, -1, *x.shape[3:])
        if mesh is None:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(None, BATCH_AXES)))

    return jax.tree.map(cut, tree)


def split_cpu(
    batch_size,
    even,
    devices=None,
    key="config.train.batch_size",
    why="both directions of each pair",
    accumulate=1,
    processes=1,
):
    """Makes the CPU several devices of one thread each, before JAX first computes; accelerators do not mind.

    Each device then works through its part of the batch without waiting for other threads after every
    operation: faster than one device of several threads (measured in docs/results.md).

    Args:
      batch_size, even, key, why, accumulate: as `check_batch_size`'s.
      devices: how many; None: one per core, if the batch can be split so.
      processes: how many such processes share the batch.

    Returns:
      The number of CPU devices asked for; None if JAX was left as it is: it has begun to compute, the user
      has decided by the environment, or the batch does not divide by the cores.

    Raises:
      UserError: the batch does not divide by `devices`.
    """
    if accumulate < 1:
        return None  # check_batch_size will say so
    multiple = (2 if even else 1) * accumulate
    count = devices or _cores()
    if batch_size % (processes * count * multiple):
        if devices is None:
            return None
        message = _batch_size_message(batch_size, processes * count, even, key, why, accumulate)
        raise UserError(f"{message}, or other --cpu_devices")
    if devices is None and count == 1:
        return None
    return use_cpu_devices(devices, one_thread=count > 1)


def use_cpu_devices(devices=None, one_thread=True, pool=None):
    """Makes the CPU several devices, before JAX first computes; accelerators do not mind.

    With one thread each, what a device computes does not depend on how many others there are: threads that
    share an operation cut it by their number, and so round otherwise.

    Args:
      devices: how many; None: one per core.
      one_thread: whether each device has one thread; else all of them share the cores.
      pool: at least so many threads for the few operations that all devices share all the same, which round
        by its size, too; None: JAX's choice, the larger of cores and devices.

    Returns:
      The number of CPU devices asked for; None if JAX was left as it is: it has begun to compute, or the user
      has decided by the environment.
    """
    if devices is None and "JAX_NUM_CPU_DEVICES" in os.environ:
        return None
    count = devices or _cores()
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has its devices already
        return None
    flags = os.environ.get("XLA_FLAGS", "")
    if one_thread and "xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    if pool is not None:
        os.environ.setdefault("PJRT_NPROC", str(max(pool, count)))
    return count


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def replicated(mesh):
    """Every device holds the whole array."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh):
    """The first axis is split over the devices."""
    return NamedSharding(mesh, P(BATCH_AXES))


def check_batch_size(
    batch_size,
    devices,
    even,
    key="config.train.batch_size",
    why="both directions of each pair",
    accumulate=1,
):
    """Raises UserError unless each device gets the same, whole (if `even`, even) number of examples a time.

    `key` is the setting's name, and `why` says what comes in twos, for the message; `accumulate` is the
    number of parts that a device works through.
    """
    if accumulate < 1:
        raise UserError(f"config.train.accumulate is {accumulate}; it must be at least 1")
    if batch_size < 1 or batch_size % (devices * accumulate * (2 if even else 1)):
        raise UserError(_batch_size_message(batch_size, devices, even, key, why, accumulate))


def _batch_size_message(batch_size, devices, even, key, why, accumulate=1):
    multiple = devices * accumulate * (2 if even else 1)
    parts = f", config.train.accumulate: {accumulate}" if accumulate > 1 else ""
    return (
        f"{key} is {batch_size}; give a positive multiple of {multiple} "
        f"(devices: {devices}{parts}{f', {why}' if even else ''})"
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


def is_of_tpus(mesh):
    """Whether a mesh has devices, and they are TPUs; those of another machine, too."""
    return isinstance(mesh, jax.sharding.Mesh) and mesh.devices.flat[0].platform == "tpu"


def jit_step(step, state_shardings, batch_sharding, replicated, compiler_options=None):
    """Jits a train step (state, constants, batch) → (state, metrics) for a mesh; the state is donated.

    Args:
      step: the function.
      state_shardings: a tree of shardings like the state, or one for all.
      batch_sharding: sharding of every array of the batch.
      replicated: sharding of the constants and of the metrics.
      compiler_options: {name: value} for the compiler of the mesh's devices.
    """
    return jax.jit(
        step,
        in_shardings=(state_shardings, replicated, batch_sharding),
        out_shardings=(state_shardings, replicated),
        donate_argnums=0,
        compiler_options=compiler_options,
    )
