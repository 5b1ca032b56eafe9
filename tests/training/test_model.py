"""A model on a mesh: which images share a batch, and how many devices, changes nothing, to the last bit."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from mscaflax.training.model import load_model
from mscaflax.training.sharding import make_mesh

# A process of its own: JAX chooses its devices once. The pool is the same for any number of devices: the
# few operations that devices share round by its size.
PROGRAM = """
import sys
from mscaflax.training.sharding import make_mesh, use_cpu_devices
devices, workdir, requests, output = sys.argv[1:]
use_cpu_devices(int(devices), pool=8)
import jax
import numpy as np
from mscaflax.training.model import load_model
assert jax.device_count() == int(devices)
given = np.load(requests)
model = load_model(workdir).over(make_mesh(jax.local_devices()))
np.save(output, model.generate(given["label"], given["exemplar"], given["label"]))
"""


def requests_for_pictures(num_classes):
    """Five: a number that no two or three devices share evenly."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, num_classes, (5, 32, 32))
    return label, rng.uniform(-1, 1, (5, 32, 32, 3))


def test_neither_place_nor_company_in_a_batch_changes_a_picture(tiny_run):
    model = load_model(tiny_run).over(make_mesh(jax.local_devices()))
    label, exemplar = requests_for_pictures(model.classes.num_classes)
    images = model.generate(label, exemplar, label)
    assert np.ptp(images[0]) > 0 and (images[0] != images[1]).any()
    turned = model.generate(label[::-1], exemplar[::-1], label[::-1])
    np.testing.assert_array_equal(turned[::-1], images)
    np.testing.assert_array_equal(model.generate(label[3:], exemplar[3:], label[3:]), images[3:])


@pytest.mark.slow
def test_the_number_of_devices_changes_no_picture(tiny_run, tmp_path):
    label, exemplar = requests_for_pictures(load_model(tiny_run).classes.num_classes)
    requests = tmp_path / "requests.npz"
    np.savez(requests, label=label, exemplar=exemplar)

    def images(devices):
        output = tmp_path / f"{devices}.npy"
        command = [sys.executable, "-c", PROGRAM, *map(str, (devices, tiny_run, requests, output))]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return np.load(output)

    one = images(1)
    assert len(one) == 5 and (one[0] != one[1]).any()
    np.testing.assert_array_equal(images(3), one)
