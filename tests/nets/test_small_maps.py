import jax.numpy as jnp
import numpy as np
import pytest

from mscaflax.nets.small_maps import convolve_by_product


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding"),
    [((2, 2), (3, 3), 1, 1), ((1, 1), (3, 3), 1, 1), ((1, 4), (3, 3), 1, 1), ((3, 3), (5, 5), 1, 2),
     ((5, 7), (3, 2), 1, 0), ((4, 5), (3, 5), 2, 1)],
)  # fmt: skip
def test_a_convolution_as_a_product(size, window, stride, padding):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, *size, 3)), rng.normal(size=(*window, 3, 4))
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, window, axis=(1, 2))[:, ::stride, ::stride]
    expected = np.einsum("bhwiyx,yxio->bhwo", windows, kernel)
    found = convolve_by_product(jnp.float32(x), jnp.float32(kernel), stride, padding)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)
