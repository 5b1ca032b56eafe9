"""The mesh and who holds what on it; one device is a mesh of one."""

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


def replicated(mesh):
    """Every device holds the whole array."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh):
    """The first axis is split over the devices."""
    return NamedSharding(mesh, P(DATA_AXIS))


def check_batch_size(batch_size, mesh, even):
    """Raises UserError unless each device gets the same, whole (if `even`, even) number of examples."""
    multiple = mesh.shape[DATA_AXIS] * (2 if even else 1)
    if batch_size < 1 or batch_size % multiple:
        raise UserError(
            f"config.train.batch_size is {batch_size}; give a positive multiple of {multiple} "
            f"(devices: {mesh.shape[DATA_AXIS]}{', both directions of each pair' if even else ''})"
        )


def shard_batch(batch, mesh):
    """This process's part of the global batch (a dict of numpy arrays) → global arrays on the mesh."""
    sharding = batch_sharding(mesh)
    return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()}
