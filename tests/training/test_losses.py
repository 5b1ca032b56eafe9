"""The losses against values computed by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mscaflax.training import losses

REAL = (np.array([[2.0, 0.5], [-1.0, 1.0]]), np.array([[0.0, 3.0]]))
FAKE = (np.array([[-2.0, 0.5], [-1.0, 0.0]]), np.array([[1.0, -3.0]]))


def test_l1_mean():
    assert losses.l1_mean(np.array([1.0, -2.0, 3.0]), np.array([0.0, 2.0, 3.0])) == pytest.approx(5 / 3)


def test_hinge_of_the_generator():
    # Means -0.625 and -1 of the two scales, each scale counting the same.
    assert losses.hinge_generator(FAKE) == pytest.approx(0.8125)


def test_hinge_of_the_discriminator():
    # Scale 0: real (0 + .5 + 2 + 0) / 4, fake (0 + 1.5 + 0 + 1) / 4; scale 1: (1 + 0) / 2, (2 + 0) / 2.
    assert losses.hinge_discriminator(REAL, FAKE) == pytest.approx((0.625 + 0.625 + 0.5 + 1.0) / 2)
    sure = (np.full((2, 2), 1.5),), (np.full((2, 2), -1.0),)
    assert losses.hinge_discriminator(*sure) == 0
    wrong = (np.full((2, 2), -1.0),), (np.full((2, 2), 1.0),)
    assert losses.hinge_discriminator(*wrong) == 4


def test_hinge_gradients_have_opposite_signs():
    x = jnp.array([0.0])
    assert jax.grad(lambda x: losses.hinge_generator((x,)))(x) == -1
    assert jax.grad(lambda x: losses.hinge_discriminator((x,), (x - 5,)))(x) == -1
    assert jax.grad(lambda x: losses.hinge_discriminator((x + 5,), (x,)))(x) == 1


def test_feature_matching_counts_every_layer_the_same():
    real = [[np.zeros((1, 4)), np.zeros((1, 100))], [np.ones((1, 2))]]
    fake = [[np.full((1, 4), 3.0), np.full((1, 100), -1.0)], [np.array([[1.0, 3.0]])]]
    assert losses.feature_matching(real, fake) == pytest.approx((3 + 1 + 1) / 3)


def test_perceptual_weights():
    real = [np.zeros((1, 2, 2, c)) for c in (1, 2, 3, 4, 5)]
    weights = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)
    for tap, weight in enumerate(weights):
        fake = [x + 2 * (i == tap) for i, x in enumerate(real)]
        assert losses.perceptual(real, fake, weights) == pytest.approx(2 * weight)
    with pytest.raises(ValueError, match="zip"):
        losses.perceptual(real, real[:4], weights)


@pytest.mark.parametrize(
    "loss, depth", [(partial(losses.perceptual, weights=(1,) * 5), 1), (losses.feature_matching, 2)]
)
def test_targets_take_no_gradient(loss, depth):
    def nested(x):
        return [x] * 5 if depth == 1 else [[x], [x]]

    of_real, of_fake = jax.grad(lambda r, f: loss(nested(r), nested(f)), argnums=(0, 1))(
        jnp.zeros(3), jnp.ones(3)
    )
    np.testing.assert_array_equal(of_real, 0)
    assert np.min(of_fake) > 0


def test_means_are_taken_in_float32():
    # 1 + 1/256 is no bfloat16: a sum of 65,536 terms in that type is far off.
    ones, other = jnp.ones(2**16, jnp.bfloat16), jnp.full(2**16, 1.0078125, jnp.bfloat16)
    for value, expected in (
        (losses.l1_mean(ones, other), 0.0078125),
        (losses.hinge_generator((other,)), -1.0078125),
        (losses.hinge_discriminator((ones * 0.5,), (ones * -0.25,)), 1.25),
    ):
        assert value.dtype == jnp.float32 and value == pytest.approx(expected, rel=1e-6)
