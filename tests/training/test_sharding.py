"""How a batch is split over devices, of the mesh and of the CPU."""

import os
import re
import subprocess
import sys

import jax
import pytest

from mscaflax.errors import UserError
from mscaflax.training.sharding import check_batch_size, make_mesh, split_cpu

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
    mesh = make_mesh(jax.devices()[:1])
    check_batch_size(2, mesh, even=True)
    for batch_size, even in ((0, False), (3, True)):
        with pytest.raises(UserError, match=r"give a positive multiple of"):
            check_batch_size(batch_size, mesh, even=even)
