"""The least traffic of a program, against bytes counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from mscaflax.config import load_config
from mscaflax.training.aot import step_floor
from mscaflax.training.experiment import build_experiment
from mscaflax.training.traffic import traffic_floor

X = jax.ShapeDtypeStruct((4, 8), jnp.float32)
W = jax.ShapeDtypeStruct((8, 8), jnp.float32)
ONE = 4 * (4 * 8 + 8 * 8 + 4 * 8)  # X @ W: two operands and a result, 4 bytes each


def floor(function, *shapes):
    return traffic_floor(jax.make_jaxpr(function)(*shapes).jaxpr)


def test_matrix_product():
    assert floor(lambda x, w: jnp.tanh(x @ w) + 1, X, W) == ONE


def test_bytes_follow_the_dtype():
    half = [jax.ShapeDtypeStruct(x.shape, jnp.bfloat16) for x in (X, W)]
    assert floor(lambda x, w: x @ w, *half) == ONE // 2
    sum_in_float32 = floor(lambda x, w: jnp.dot(x, w, preferred_element_type=jnp.float32), *half)
    assert sum_in_float32 == ONE // 2


def test_convolution():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x, kernel = (
        jax.ShapeDtypeStruct((2, 6, 6, 3), jnp.float32),
        jax.ShapeDtypeStruct((3, 3, 3, 5), jnp.float32),
    )
    assert floor(convolve, x, kernel) == 4 * (2 * 6 * 6 * 3 + 3 * 3 * 3 * 5 + 2 * 3 * 3 * 5)


def test_one_operand_twice_is_read_once():
    assert floor(lambda w: w @ w, W) == 4 * 2 * 8 * 8


def test_a_product_that_no_result_needs_is_none():
    assert floor(lambda x, w: (x @ w, x + 1)[1], X, W) == 0
    assert floor(lambda x, w: jax.jit(lambda a, b: (a @ b, a + 1))(x, w)[1], X, W) == 0


def test_programs_inside_are_followed():
    assert floor(jax.jit(lambda x, w: x @ w), X, W) == ONE
    assert floor(jax.checkpoint(lambda x, w: x @ w), X, W) == ONE

    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))
    assert floor(product, X, W) == ONE


def test_a_scan_counts_by_its_length():
    def program(x, w):
        return jax.lax.scan(lambda carry, _: (carry @ w, None), x, None, length=5)[0]

    assert floor(program, X, W) == 5 * ONE
    nested = jax.lax.scan
    assert (
        floor(lambda x, w: nested(lambda c, _: (program(c, w), None), x, None, length=3)[0], X, W) == 15 * ONE
    )


def test_a_cond_counts_its_cheapest_branch():
    def program(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)

    assert floor(program, X, W) == ONE


def test_backward_products_count():
    def loss(w, x):
        return (x @ w).sum()

    # The product itself is dead, its value is not asked for; its gradient is one product, xᵀ @ ones.
    assert floor(jax.grad(loss), W, X) == ONE
    assert floor(jax.value_and_grad(loss), W, X) == 2 * ONE
    assert floor(jax.value_and_grad(loss, argnums=(0, 1)), W, X) == 3 * ONE


@pytest.fixture(scope="module")
def tiny_floors():
    """{examples: the floor of the tiny train step}."""
    experiment = build_experiment(load_config(["--config=tiny"]), 5)
    return {count: step_floor(experiment, count) for count in (2, 4, 6)}


def test_a_steps_floor_is_linear_in_the_batch(tiny_floors):
    # What depends on the batch grows with it; what is left are the weights.
    slope = (tiny_floors[4] - tiny_floors[2]) // 2
    assert tiny_floors[6] - tiny_floors[4] == 2 * slope > 0
    assert tiny_floors[2] - 2 * slope > 4 * 14_714_688 * 2  # VGG's weights alone, in two passes
