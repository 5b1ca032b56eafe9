"""Inception's blocks against sums over windows in float64, written from the tables of the architecture."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mscaflax.nets.inception import BlockA, BlockB, BlockC, BlockD, BlockE, InceptionV3

# Each branch: what it starts from, then its convolutions as (name, height, width, stride).
AVERAGE, MAXIMUM, HALVED = "average", "maximum", "halved"
POOLED = (("branch_pool", 1, 1, 1),)
POINT = (("branch1x1", 1, 1, 1),)
DOUBLE_3X3 = (("branch3x3dbl_1", 1, 1, 1), ("branch3x3dbl_2", 3, 3, 1))
SEVEN = (("branch7x7_1", 1, 1, 1), ("branch7x7_2", 1, 7, 1), ("branch7x7_3", 7, 1, 1))
DOUBLE_SEVEN = tuple(
    (f"branch7x7dbl_{i}", h, w, 1) for i, (h, w) in enumerate(((1, 1), (7, 1), (1, 7), (7, 1), (1, 7)), 1)
)
SEVEN_THREE = tuple(
    (f"branch7x7x3_{i}", h, w, s)
    for i, (h, w, s) in enumerate(((1, 1, 1), (1, 7, 1), (7, 1, 1), (3, 3, 2)), 1)
)


def last_block(pooling):
    start, double = ("branch3x3_1", 1, 1, 1), DOUBLE_3X3
    return (
        ("input", POINT),
        ("input", (start, ("branch3x3_2a", 1, 3, 1))),
        ("input", (start, ("branch3x3_2b", 3, 1, 1))),
        ("input", (*double, ("branch3x3dbl_3a", 1, 3, 1))),
        ("input", (*double, ("branch3x3dbl_3b", 3, 1, 1))),
        (pooling, POOLED),
    )


BLOCKS = {
    "A": (
        BlockA(pool_features=3),
        64 + 64 + 96 + 3,
        (
            ("input", POINT),
            ("input", (("branch5x5_1", 1, 1, 1), ("branch5x5_2", 5, 5, 1))),
            ("input", (*DOUBLE_3X3, ("branch3x3dbl_3", 3, 3, 1))),
            (AVERAGE, POOLED),
        ),
    ),
    "B": (
        BlockB(),
        384 + 96 + 5,
        (
            ("input", (("branch3x3", 3, 3, 2),)),
            ("input", (*DOUBLE_3X3, ("branch3x3dbl_3", 3, 3, 2))),
            (HALVED, ()),
        ),
    ),
    "C": (
        BlockC(width=4),
        4 * 192,
        (("input", POINT), ("input", SEVEN), ("input", DOUBLE_SEVEN), (AVERAGE, POOLED)),
    ),
    "D": (
        BlockD(),
        320 + 192 + 5,
        (
            ("input", (("branch3x3_1", 1, 1, 1), ("branch3x3_2", 3, 3, 2))),
            ("input", SEVEN_THREE),
            (HALVED, ()),
        ),
    ),
    "E average": (BlockE(max_pool=False), 2048, last_block(AVERAGE)),
    "E maximum": (BlockE(max_pool=True), 2048, last_block(MAXIMUM)),
}


def windows(x, height, width):
    """Every window of [h, w, c], of the pixels inside the image only, by its centre."""
    for i, j in itertools.product(range(x.shape[0]), range(x.shape[1])):
        rows = slice(max(0, i - height // 2), i + height // 2 + 1)
        columns = slice(max(0, j - width // 2), j + width // 2 + 1)
        yield i, j, x[rows, columns]


def pooled(x, kind):
    if kind == "input":
        return x
    out = np.empty_like(x)
    for i, j, window in windows(x, 3, 3):
        out[i, j] = window.mean((0, 1)) if kind == AVERAGE else window.max((0, 1))
    return out[1:-1:2, 1:-1:2] if kind == HALVED else out


def convolved(x, params, height, width, stride):
    kernel = params["kernel"].astype(np.float64)
    assert kernel.shape[:2] == (height, width)
    padded = np.pad(x, ((height // 2, height // 2), (width // 2, width // 2), (0, 0)))
    out = sum(
        padded[i : i + x.shape[0], j : j + x.shape[1]] @ kernel[i, j]
        for i, j in itertools.product(range(height), range(width))
    )
    out = np.maximum(out + params["bias"], 0)
    return out[1:-1:2, 1:-1:2] if stride == 2 else out  # without padding, the second centre is the first


def randomize(params):
    """Kernels that keep activations of size one, and biases that matter."""
    rng = np.random.default_rng(0)

    def random(leaf):
        deviation = (2 / np.prod(leaf.shape[:-1])) ** 0.5 if leaf.ndim == 4 else 0.3
        return rng.normal(0, deviation, leaf.shape).astype(np.float32)

    return jax.tree.map(random, params)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_match_sums_over_windows(name):
    block, channels, branches = BLOCKS[name]
    # A mean far below zero: padding by zeros would be the maximum everywhere at the border.
    x = np.random.default_rng(1).normal(-2, 1, (2, 9, 8, 5)).astype(np.float32)
    params = randomize(jax.eval_shape(block.init, jax.random.key(0), x)["params"])
    found = jax.jit(block.apply)({"params": params}, x)
    expected = []
    for image in x.astype(np.float64):
        parts = []
        for start, convolutions in branches:
            part = pooled(image, start)
            for conv, height, width, stride in convolutions:
                part = convolved(part, params[conv], height, width, stride)
            parts.append(part)
        expected.append(np.concatenate(parts, axis=-1))
    assert found.shape == (2, *expected[0].shape) and found.shape[-1] == channels
    assert {conv for _, convolutions in branches for conv, *_ in convolutions} == params.keys()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_every_product_has_full_precision():
    images = jnp.zeros((1, 75, 75, 3))
    params = jax.eval_shape(InceptionV3().init, jax.random.key(0), images)
    jaxpr = jax.make_jaxpr(InceptionV3().apply)(params, images)
    convolutions = [e for e in jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
    assert len(convolutions) == 94
    assert {e.params["precision"] for e in convolutions} == {(jax.lax.Precision.HIGHEST,) * 2}


def test_smallest_size():
    def shape(*size):
        images = jax.ShapeDtypeStruct(size, jnp.float32)
        return jax.eval_shape(InceptionV3().init_with_output, jax.random.key(0), images)[0].shape

    assert shape(2, 75, 80, 3) == (2, 2048)
    for wrong in ((2, 74, 80, 3), (75, 75, 3), (2, 75, 75, 1)):
        with pytest.raises(ValueError, match="at least 75"):
            shape(*wrong)
