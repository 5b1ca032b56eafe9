"""How a batch is split over devices, of the mesh and of the CPU."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mscaflax.errors import UserError
from mscaflax.training.sharding import (
    BATCH_AXES,
    check_batch_size,
    make_mesh,
    microbatches,
    split_cpu,
    state_shardings,
)

# A process of its own: JAX chooses its devices once.
PROGRAM = """
import os, sys
os.sched_getaffinity = lambda pid: range({cores})
from mscaflax.training.sharding import split_cpu
found = split_cpu({batch_size}, {even}, {devices})
import jax
print(found, jax.device_count(), "eigen=false" in os.environ.get("XLA_FLAGS", ""))
"""


def split(cores, batch_size, even, devices=None, **environment):
    program = PROGRAM.format(cores=cores, batch_size=batch_size, even=even, devices=devices)
    inherited = {key: value for key, value in os.environ.items() if key != "JAX_NUM_CPU_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=inherited | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("cores", "batch_size", "even", "expected"),
    [
        (2, 8, True, "2 2 True"),
        (4, 8, True, "4 4 True"),
        (8, 8, False, "8 8 True"),
        (8, 8, True, "None 1 False"),  # halves of pairs cannot be parted
        (3, 8, False, "None 1 False"),
        (1, 8, True, "None 1 False"),
    ],
)
def test_the_cpu_becomes_a_device_per_core_where_the_batch_divides(cores, batch_size, even, expected):
    assert split(cores, batch_size, even) == expected


def test_the_user_decides_by_argument_or_environment():
    assert split(2, 8, True, devices=4) == "4 4 True"
    assert split(2, 8, True, devices=1) == "1 1 False"
    assert split(2, 8, True, devices=1, JAX_NUM_CPU_DEVICES="4") == "1 1 False"
    assert split(2, 8, True, JAX_NUM_CPU_DEVICES="1") == "None 1 False"
    assert split(2, 8, True, XLA_FLAGS="--xla_cpu_multi_thread_eigen=true") == "2 2 False"


def test_devices_that_the_batch_does_not_divide_by_are_refused():
    message = re.escape("config.train.batch_size is 8; give a positive multiple of 6 (devices: 3, both")
    with pytest.raises(UserError, match=message):
        split_cpu(8, True, 3)


def test_devices_that_jax_has_stay_as_they_are():
    before = jax.device_count(), os.environ.get("XLA_FLAGS")
    assert split_cpu(2 * before[0] + 2, False, before[0] + 1) is None
    assert (jax.device_count(), os.environ.get("XLA_FLAGS")) == before


def test_a_batch_gives_each_device_the_same_number():
    check_batch_size(2, 1, even=True)
    check_batch_size(12, 2, even=True, accumulate=3)
    for batch_size, even in ((0, False), (3, True)):
        with pytest.raises(UserError, match=r"give a positive multiple of"):
            check_batch_size(batch_size, 1, even=even)
    with pytest.raises(UserError, match=r"multiple of 12 \(devices: 2, config.train.accumulate: 3, both"):
        check_batch_size(8, 2, even=True, accumulate=3)
    with pytest.raises(UserError, match="config.train.accumulate is 0; it must be at least 1"):
        check_batch_size(8, 2, even=True, accumulate=0)


def test_large_arrays_are_split_over_fsdp_along_their_longest_axis():
    mesh = jax.sharding.AbstractMesh((2, 4), BATCH_AXES, axis_types=(AxisType.Auto,) * 2)
    shapes = {
        "kernel": (3, 3, 128, 256),
        "square": (128, 128),
        "first": (512, 129),
        "bias": (256,),
        "odd": (181, 181),
    }
    found = state_shardings(mesh, lambda: {name: jnp.zeros(shape) for name, shape in shapes.items()})
    assert {name: place.spec for name, place in found.items()} == {
        "kernel": P(None, None, None, "fsdp"),
        "square": P(None, "fsdp"),
        "first": P("fsdp"),
        "bias": P(),
        "odd": P(),
    }
    whole = jax.sharding.AbstractMesh((8, 1), BATCH_AXES, axis_types=(AxisType.Auto,) * 2)
    assert state_shardings(whole, lambda: jnp.zeros(shapes["kernel"])).spec == P()


@pytest.mark.parametrize("fsdp", [0, 3, -1])
def test_fsdp_divides_the_devices(fsdp):
    with pytest.raises(
        UserError, match=rf"config.mesh.fsdp is {fsdp}; it must divide the number of devices, 1"
    ):
        make_mesh(jax.devices()[:1], fsdp)


def test_devices_of_a_process_stand_side_by_side_in_whatever_order_they_come(monkeypatch):
    devices = [SimpleNamespace(process_index=i % 2, id=i) for i in range(4)]
    monkeypatch.setattr(jax.sharding, "Mesh", lambda devices, axes, **options: devices)
    assert [[one.id for one in row] for row in make_mesh(devices[::-1], fsdp=2)] == [[0, 2], [1, 3]]


def test_microbatches_keep_neighbours_together_and_lose_nothing():
    parts = microbatches({"x": jnp.arange(12), "y": jnp.arange(24).reshape(12, 2)}, 3)
    assert parts["x"].shape == (3, 4) and parts["y"].shape == (3, 4, 2)
    assert parts["x"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert (parts["y"][..., 0] == 2 * parts["x"]).all()
