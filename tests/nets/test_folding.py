"""Folded maps give what unfolded ones give; `test_step.py` compares the whole train step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mscaflax.nets.convolution import edge_conv, edge_convolution
from mscaflax.nets.encoders import class_shares, folded_one_hot
from mscaflax.nets.folding import fold, fold_kernel, fold_matrix, round_to, unfold
from mscaflax.nets.layers import average_pool, normalize, upsample, upsample_folded
from mscaflax.nets.msca import Alignment, distribute
from mscaflax.nets.spade import ModulatedBlock
from mscaflax.nets.vgg import load_vgg16, vgg16_taps


def assert_close(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.abs(b).max()))


def test_the_left_column_comes_first(rng):
    x = rng.normal(size=(2, 3, 8, 5))
    folded = fold(x)
    np.testing.assert_array_equal(folded[..., :5], x[:, :, ::2])
    np.testing.assert_array_equal(folded[..., 5:], x[:, :, 1::2])
    np.testing.assert_array_equal(unfold(folded), x)


def test_a_dense_layer_works_on_each_column(rng):
    x = rng.normal(size=(2, 3, 8, 5)).astype(np.float32)
    kernel = rng.normal(size=(5, 4)).astype(np.float32)
    assert_close(fold(x) @ np.asarray(fold_matrix(kernel)), fold(x @ kernel))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("width", [3, 4, 5])
def test_zeros_around_the_map(rng, width, stride):
    x = rng.normal(size=(2, 4, 8, 3)).astype(np.float32)
    kernel = rng.normal(size=(1, width, 3, 5)).astype(np.float32)
    before = (width - 1) // 2
    folded, padding = fold_kernel(kernel, stride)
    names = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(fold(x), folded, (1, 1), ((0, 0), padding), dimension_numbers=names)
    columns = (before, width - 1 - before)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1, stride), ((0, 0), columns), dimension_numbers=names
    )
    assert_close(unfold(y) if stride == 1 else y, expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 8), (2, 4), (10, 6), (4, 4)])
def test_a_repeated_border(rng, size, stride):
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 5)).astype(np.float32)
    weight = rng.normal(size=(2, size[0] // stride, size[1] // stride, 5)).astype(np.float32)

    def folded(x, kernel):
        y = edge_convolution(fold(x), kernel, stride, True)
        return unfold(y) if stride == 1 else y

    def total(convolve):
        return jax.jit(jax.value_and_grad(lambda x, kernel: (weight * convolve(x, kernel)).sum(), (0, 1)))

    expected = total(lambda x, kernel: edge_convolution(x, kernel, stride))(x, kernel)
    assert_close(total(folded)(x, kernel), expected)


def test_a_map_with_padding_or_one_column_is_refused(rng):
    x, kernel = rng.normal(size=(1, 4, 1, 6)), rng.normal(size=(3, 3, 3, 5))
    with pytest.raises(ValueError, match="at least two folded columns"):
        edge_conv(x, kernel, folded=True)
    with pytest.raises(ValueError, match="no padding"):
        edge_conv(fold(rng.normal(size=(1, 4, 4, 3))), kernel, valid=np.ones((1, 4, 4, 1)), folded=True)


def test_a_constant_map_stays_constant_in_bfloat16(rng):
    x = np.broadcast_to(rng.normal(size=(64,)), (1, 8, 8, 64)).astype(jnp.bfloat16)
    kernel = rng.normal(size=(3, 3, 64, 32)).astype(jnp.bfloat16)
    y = np.asarray(unfold(jax.jit(lambda x: edge_conv(x, kernel, folded=True))(fold(x))), np.float32)
    assert (np.ptp(y, axis=(1, 2)) == 0).all() and np.ptp(y) > 1


@pytest.mark.parametrize("kind", ["instance", "position"])
def test_normalization(rng, kind):
    x = rng.normal(size=(2, 6, 8, 5)).astype(np.float32) * 3 + 1
    assert_close(unfold(normalize(fold(x), kind, folded=True)), normalize(x, kind))


def test_upsampling(rng):
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    assert_close(unfold(upsample_folded(x)), upsample(x))


def test_one_hot_labels(rng):
    label = rng.integers(0, 4, size=(2, 3, 6))
    found = folded_one_hot(label, 4, jnp.bfloat16)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(unfold(found), jax.nn.one_hot(label, 4, dtype=jnp.bfloat16))


@pytest.mark.parametrize("factor", [2, 4])
def test_shares_of_classes_are_those_of_pooled_one_hot_maps(rng, factor):
    label = rng.integers(0, 4, size=(2, 4, 8))
    expected = average_pool(jax.nn.one_hot(label, 4), factor)
    np.testing.assert_allclose(class_shares(label, 4, factor, jnp.float32), expected, atol=1e-6)


def test_what_is_rounded_has_a_rounded_gradient(rng):
    x, weights = (rng.normal(size=(3, 5)).astype(np.float32) for _ in range(2))
    gradients = jax.jit(jax.grad(lambda x: (weights * round_to(x, jnp.bfloat16)).sum()))
    gradient = gradients(x)
    assert gradient.dtype == jnp.float32
    np.testing.assert_array_equal(gradient, weights.astype(jnp.bfloat16).astype(np.float32))
    # Without it, the TPU's compiler takes the rounding out.
    assert "optimization_barrier" in str(jax.make_jaxpr(gradients)(x))


def test_features_of_vgg(rng):
    vgg = load_vgg16()
    images = rng.uniform(-1, 1, size=(1, 16, 32, 3)).astype(np.float32)
    first, *others = vgg16_taps(vgg, images, folded=True)
    assert_close([unfold(first), *others], list(vgg16_taps(vgg, images)))


@pytest.mark.parametrize("channels", [6, 5])
@pytest.mark.parametrize("regions", [True, False])
@pytest.mark.parametrize(
    ("modulation", "convolutions"), [("spade", False), ("decoupled", False), ("decoupled", True)]
)
def test_a_block(rng, modulation, convolutions, regions, channels):
    """With and without an alignment; 6 channels come in, so that 5 need a projection beside the block."""
    block = ModulatedBlock(channels=channels, hidden=7, modulation=modulation)
    x, label, noise = (rng.normal(size=(2, 4, 8, c)).astype(np.float32) for c in (6, 4, 2))
    assignment = rng.dirichlet(np.ones(3), size=(2, 4, 8)).astype(np.float32)
    values = rng.normal(size=(2, 3, 4)).astype(np.float32)
    alignment = Alignment(distribute(assignment, values), assignment, values) if regions else None
    params = block.init(jax.random.key(0), x, alignment, label, noise)
    params = jax.tree.map(lambda p: p + rng.normal(size=p.shape).astype(np.float32), params)

    def plain(params, x):
        return block.apply(params, x, alignment, label, noise)

    def folded(params, x):
        given = alignment
        if given is not None:
            given = given.replace(features=fold(given.features), assignment=fold(given.assignment))
        return unfold(block.apply(params, fold(x), given, fold(label), noise, None, True, convolutions))

    weight = rng.normal(size=(2, 4, 8, channels)).astype(np.float32)

    def total(function):
        return jax.jit(jax.value_and_grad(lambda *args: (weight * function(*args)).sum(), (0, 1)))

    assert_close(total(folded)(params, x), total(plain)(params, x))
