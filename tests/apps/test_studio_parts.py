"""What the studio is made of, apart from the application: fitted layouts, and who may ask."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from mscaflax.apps.inputs import legal_size
from mscaflax.apps.studio.examples import closest_size, fit_layout
from mscaflax.apps.studio.guards import host_allowed
from mscaflax.apps.studio.service import Studio
from mscaflax.errors import UserError


def test_other_sizes_are_cut_and_shrunk():
    sizes = ((32, 64), (32, 32), (64, 64))
    assert closest_size(sizes, (500, 900)) == (32, 64)
    assert closest_size(sizes, (30, 31)) == (32, 32)
    assert closest_size(sizes, (3000, 3000)) == (64, 64)
    label = np.arange(8)[None].repeat(4, axis=0)
    np.testing.assert_array_equal(fit_layout(label, (4, 4)), label[:, 2:6])
    np.testing.assert_array_equal(fit_layout(label.T, (2, 2)), [[2, 2], [4, 4]] + np.array([[1], [1]]))
    assert fit_layout(np.zeros((1, 4000), int), (64, 64)).shape == (64, 64)


@pytest.mark.parametrize(
    ("header", "host", "allowed"),
    [
        ("localhost:7860", "127.0.0.1", True),
        ("[::1]:7860", "::1", True),
        ("127.0.0.1:80", "localhost", True),
        ("192.168.0.7:7860", "0.0.0.0", True),
        ("evil.example", "0.0.0.0", False),
        ("studio.example", "studio.example", True),
    ],
)
def test_hosts(header, host, allowed):
    assert host_allowed(header, host) == allowed


@pytest.mark.parametrize("side_range", [(0.5, 1.0), (0.2, 0.5), (0.25, 0.75), (0.5, 0.5), (1.0, 1.0)])
def test_what_it_prepares_it_takes(side_range):
    config = SimpleNamespace(data=SimpleNamespace(size=64, side_range=side_range))
    model = SimpleNamespace(config=config, network=SimpleNamespace(size_multiple=16))
    studio = Studio(SimpleNamespace(model=model))
    for size in itertools.product((30, 64, 500, 1000, 4000), repeat=2):
        studio.check_exemplar(SimpleNamespace(photo=np.empty((*legal_size(model, size), 3), np.uint8)))
    with pytest.raises(UserError, match="not prepared here"):
        studio.check_exemplar(SimpleNamespace(photo=np.empty((1024, 1024, 3), np.uint8)))
