"""A model on several devices: which images stand beside one in a batch changes nothing, to the last bit."""

import jax
import numpy as np

from mscaflax.training.model import load_model
from mscaflax.training.sharding import make_mesh


def test_neither_place_nor_company_changes_a_picture(tiny_run):
    model = load_model(tiny_run).over(make_mesh(jax.local_devices()))
    rng = np.random.default_rng(0)
    label = rng.integers(0, model.classes.num_classes, (5, 32, 32))
    exemplar = rng.uniform(-1, 1, (5, 32, 32, 3))
    images = model.generate(label, exemplar, label)
    assert np.ptp(images[0]) > 0 and (images[0] != images[1]).any()
    turned = model.generate(label[::-1], exemplar[::-1], label[::-1])
    np.testing.assert_array_equal(turned[::-1], images)
    np.testing.assert_array_equal(model.generate(label[3:], exemplar[3:], label[3:]), images[3:])
