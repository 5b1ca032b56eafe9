"""What the studio is made of, apart from the application: fitted layouts, and who may ask."""

import numpy as np
import pytest

from mscaflax.apps.studio.examples import closest_size, fit_layout
from mscaflax.apps.studio.guards import host_allowed


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
