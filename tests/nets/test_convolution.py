import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from mscaflax.nets.convolution import EdgeConv, convolve_padded, edge_conv, edge_convolution, pad_by_edge


def test_border_is_repeated_around_the_content(rng, corner):
    x = rng.normal(size=(3, 4, 5, 2)).astype(np.float32)
    np.testing.assert_array_equal(pad_by_edge(x), np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge"))
    sizes = [(3, 2), (1, 5), (4, 5)]
    padded = pad_by_edge(x, corner(sizes, 4, 5))
    assert padded.shape == (3, 6, 7, 2)
    for i, (rows, columns) in enumerate(sizes):
        content = np.pad(x[i, :rows, :columns], ((1, 1), (1, 1), (0, 0)), mode="edge")
        np.testing.assert_array_equal(padded[i, : rows + 2, : columns + 2], content)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 8), (2, 2), (4, 4), (2, 10)])
def test_edge_conv_repeats_the_border_of_the_content(rng, corner, size, stride):
    height, width = size
    x = rng.normal(size=(1, height, width, 2)).astype(np.float32)
    conv = EdgeConv(3, stride)
    params = conv.init(jax.random.key(0), x)
    kernel = np.asarray(params["params"]["conv"]["kernel"], np.float64)
    expected = np.stack(
        [
            sum(
                ndimage.correlate(x[0, ..., i].astype(np.float64), kernel[..., i, o], mode="nearest")
                for i in range(2)
            )
            for o in range(3)
        ],
        axis=-1,
    )[::stride, ::stride]
    np.testing.assert_allclose(conv.apply(params, x)[0], expected, atol=1e-5)
    # Padded to a map that is small itself, and to a large one.
    for frame in [(10, 12), (4, 4)][: 1 + (size == (2, 2))]:
        padded = np.full((1, *frame, 2), 1e3, np.float32)
        padded[:, :height, :width] = x
        out = conv.apply(params, padded, valid=corner([size], *frame))
        np.testing.assert_allclose(out[0, : height // stride, : width // stride], expected, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 4), (4, 4), (2, 2)])
def test_the_border_alone_gives_what_a_map_with_a_border_gives(rng, size, stride):
    height, width = size
    x = rng.normal(size=(2, height, width, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 5)).astype(np.float32)
    weight = rng.normal(size=(2, height // stride, width // stride, 5)).astype(np.float32)

    def total(convolve):
        return jax.jit(jax.value_and_grad(lambda x, kernel: (weight * convolve(x, kernel)).sum(), (0, 1)))

    found = total(lambda x, kernel: edge_convolution(x, kernel, stride))(x, kernel)
    expected = total(lambda x, kernel: convolve_padded(pad_by_edge(x), kernel, stride))(x, kernel)
    assert expected[0] != 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


@pytest.mark.parametrize("size", [(8, 8), (1, 20), (1, 4)])
def test_a_constant_map_stays_constant_in_bfloat16(rng, size):
    """A border that is rounded otherwise than the inside would be all that normalization sees."""
    x = np.broadcast_to(rng.normal(size=(64,)), (1, *size, 64)).astype(jnp.bfloat16)
    kernel = rng.normal(size=(3, 3, 64, 32)).astype(jnp.bfloat16)
    y = np.asarray(jax.jit(edge_conv)(x, kernel), np.float32)
    assert (np.ptp(y, axis=(1, 2)) == 0).all() and np.ptp(y) > 1


def test_several_maps_count_as_one(rng):
    maps = [rng.normal(size=(1, 4, 6, c)).astype(np.float32) for c in (2, 3, 1)]
    together = np.concatenate(maps, axis=-1)
    conv = EdgeConv(3)
    params = conv.init(jax.random.key(0), together)
    np.testing.assert_allclose(conv.apply(params, *maps), conv.apply(params, together), atol=1e-5)
