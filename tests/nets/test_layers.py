import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from mscaflax.nets.folding import fold, unfold
from mscaflax.nets.layers import (
    MAX_PRODUCT_SIDE,
    average_pool,
    coverage_pyramid,
    instance_norm,
    layer_norm,
    normalize,
    normalized_product,
    position_noise,
    upsample,
)


def standardized(x, axis, mask=None):
    """Zero mean and unit deviation over `axis` in float64; entries where `mask` is False are left out."""
    x = np.ma.masked_array(x.astype(np.float64), None if mask is None else np.broadcast_to(~mask, x.shape))
    y = x - x.mean(axis=axis, keepdims=True)
    return (y / np.ma.sqrt((y * y).mean(axis=axis, keepdims=True) + 1e-5)).filled(0)


def test_instance_norm_is_per_image_and_channel(rng):
    x = rng.normal(3, [1, 2, 5], (2, 4, 6, 3)).astype(np.float32)
    y = np.asarray(instance_norm(x))
    np.testing.assert_allclose(y, standardized(x, (1, 2)), atol=1e-5)
    np.testing.assert_allclose(y.std(axis=(1, 2)), 1, atol=1e-3)


def test_instance_norm_of_content_ignores_padding(rng):
    x = rng.normal(3, 2, (2, 4, 6, 3)).astype(np.float32)
    mask = np.zeros((2, 4, 6, 1), bool)
    mask[0, :3, :4] = mask[1, :, :2] = True
    x[~mask[..., 0]] = 1e3
    y = instance_norm(x, mask) * mask
    np.testing.assert_allclose(y, standardized(x, (1, 2), mask) * mask, atol=1e-5)
    content = instance_norm(x[:1, :3, :4])
    np.testing.assert_allclose(y[:1, :3, :4], content, atol=1e-5)


def test_instance_norm_without_content_is_finite():
    y = instance_norm(np.ones((1, 2, 2, 1), np.float32), np.zeros((1, 2, 2, 1), bool))
    assert np.isfinite(y).all()


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("deviation", [2, 0])
def test_gradient_of_instance_norm(rng, monkeypatch, folded, deviation):
    x, weights = 3 + deviation * rng.normal(size=(2, 4, 6, 3)), rng.normal(size=(2, 4, 6, 3))

    def by_definition(x):
        y = x - x.mean(axis=(1, 2), keepdims=True)
        return (weights * y / jnp.sqrt((y * y).mean(axis=(1, 2), keepdims=True) + 1e-5)).sum()

    def by_layer(x):
        return (weights * (unfold(instance_norm(fold(x), folded=True)) if folded else instance_norm(x))).sum()

    assert jax.grad(by_layer)(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.bfloat16
    with jax.enable_x64():
        monkeypatch.setattr(jnp, "float32", jnp.float64)
        expected, found = jax.grad(by_definition)(x), jax.grad(by_layer)(x)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_layer_norm_is_per_position(rng):
    x = rng.normal(3, 2, (2, 4, 6, 16)).astype(np.float32)
    np.testing.assert_allclose(layer_norm(x), standardized(x, -1), atol=1e-5)


def test_a_normalized_product_is_that_of_the_normalized_map(rng):
    x, kernel = rng.normal(3, 2, (2, 4, 6, 16)), rng.normal(0, 1, (16, 3))
    weights = rng.normal(0, 1, (2, 4, 6, 3))

    def values_and_gradients(product):
        return jax.value_and_grad(lambda *arrays: (weights * product(*arrays)).sum(), (0, 1))(x, kernel)

    with jax.enable_x64():
        both = map(values_and_gradients, (normalized_product, lambda x, kernel: layer_norm(x) @ kernel))
    # What is left are the statistics, float32 in both.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *both)


@pytest.mark.parametrize(("mean", "deviation"), [(1, 1), (100, 3), (1, 0.05), (1, 0)])
def test_a_normalized_product_in_bfloat16_takes_the_mean_off(rng, mean, deviation):
    x = jnp.asarray(mean + deviation * rng.normal(0, 1, (1, 16, 16, 64)), jnp.bfloat16)
    kernel = rng.normal(0, 1 / 8, (64, 32)).astype(np.float32)
    expected = layer_norm(x.astype(jnp.float32)) @ kernel
    found = normalized_product(x, kernel)
    assert found.dtype == jnp.bfloat16
    # Of numbers with deviation 1: what 8 bits of kernel, product and result leave.
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=0.04)


@pytest.mark.parametrize("norm, axis", [(layer_norm, -1), (instance_norm, (1, 2))])
def test_norms_keep_bfloat16_but_compute_in_float32(rng, norm, axis):
    x = jnp.asarray(rng.normal(100, 3, (1, 16, 16, 64)), jnp.bfloat16)
    y = norm(x)
    assert y.dtype == jnp.bfloat16
    # Half a step of bfloat16 near 4; statistics in bfloat16 would be off by the whole deviation.
    np.testing.assert_allclose(y.astype(np.float32), standardized(np.asarray(x), axis), atol=2e-2)


def test_normalize_chooses(rng):
    x = rng.normal(size=(1, 4, 4, 8)).astype(np.float32)
    np.testing.assert_array_equal(normalize(x, "instance"), instance_norm(x))
    np.testing.assert_array_equal(normalize(x, "position"), layer_norm(x))
    with pytest.raises(ValueError, match="'batch'.*'instance' and 'position'"):
        normalize(x, "batch")


def test_coverage_pyramid(rng):
    assert coverage_pyramid(None, 3) == (None, None, None)
    valid = rng.random((2, 8, 12)) < 0.5
    pyramid = coverage_pyramid(jnp.asarray(valid), 3)
    assert len(pyramid) == 3
    for scale, level in enumerate(pyramid):
        size = 2**scale
        expected = [
            [[m[y : y + size, x : x + size].mean() for x in range(0, 12, size)] for y in range(0, 8, size)]
            for m in valid.astype(np.float64)
        ]
        assert level.dtype == jnp.float32
        np.testing.assert_allclose(level[..., 0], expected, atol=1e-6)


def test_average_pool(rng):
    x = rng.normal(size=(2, 4, 6, 3)).astype(np.float32)
    pooled = average_pool(x)
    assert pooled.shape == (2, 2, 3, 3)
    for i, j in np.ndindex(2, 3):
        cell = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        np.testing.assert_allclose(pooled[:, i, j], cell.mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(average_pool(x[:, :3], 3)[:, 0, 1], x[:, :3, 3:].mean(axis=(1, 2)), atol=1e-6)


def test_upsample_is_bilinear_with_aligned_centres(rng):
    x = rng.normal(size=(2, 3, 5, 2)).astype(np.float32)
    # Centre of fine position i in coarse positions; what lies beyond the border takes its value.
    y, x_at = (np.clip((np.arange(2 * side) + 0.5) / 2 - 0.5, 0, side - 1) for side in (3, 5))
    points = np.stack(np.meshgrid(y, x_at, indexing="ij"))
    doubled = np.asarray(upsample(x))
    assert doubled.shape == (2, 6, 10, 2)
    for i, c in np.ndindex(2, 2):
        expected = ndimage.map_coordinates(x[i, ..., c].astype(np.float64), points, order=1)
        np.testing.assert_allclose(doubled[i, ..., c], expected, atol=1e-6)
    # A constant stays one, up to the border.
    np.testing.assert_array_equal(upsample(np.full((1, 2, 2, 1), 3.0, np.float32)), 3)


def test_upsampled_content_does_not_see_padding(rng, corner):
    x = rng.normal(size=(2, 4, 5, 2)).astype(np.float32)
    sizes = [(3, 2), (4, 4)]
    doubled = upsample(x, corner(sizes, 4, 5))
    for i, (rows, columns) in enumerate(sizes):
        alone = upsample(x[i : i + 1, :rows, :columns])[0]
        np.testing.assert_allclose(doubled[i, : 2 * rows, : 2 * columns], alone, atol=1e-6)


@pytest.fixture(scope="module")
def noise():
    keys = jax.random.split(jax.random.key(0), 2)
    return jax.jit(position_noise, static_argnums=1)(keys, ((64, 48), (32, 24)))


def test_noise_of_a_crop_is_the_crop_of_the_noise(noise):
    keys = jax.random.split(jax.random.key(0), 2)
    small = jax.jit(position_noise, static_argnums=1)(keys, ((16, 8), (8, 4)))
    for a, b in zip(small, noise, strict=True):
        np.testing.assert_array_equal(a, b[:, : a.shape[1], : a.shape[2]])


def test_noise_is_standard_normal_and_independent(noise):
    assert [x.shape for x in noise] == [(2, 64, 48, 2), (2, 32, 24, 2)]
    samples = np.concatenate([np.ravel(x) for x in noise])
    assert stats.kstest(samples, "norm").pvalue > 0.01
    fine, coarse = map(np.asarray, noise)
    pairs = {
        "images": (fine[0], fine[1]),
        "maps": (fine[..., 0], fine[..., 1]),
        "scales": (fine[:, :32, :24], coarse),
        "columns": (fine[:, :, 1:], fine[:, :, :-1]),
        "rows": (fine[:, 1:], fine[:, :-1]),
        "transposed": (fine[:, :48], fine[:, :48].swapaxes(1, 2)),
    }
    # The diagonal of a map is its own transpose: 1 in 48. Chance stays under 4/√n.
    bounds = {name: 4 / a.size**0.5 + (name == "transposed") / 48 for name, (a, _) in pairs.items()}
    found = {name: abs(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]) for name, (a, b) in pairs.items()}
    assert {name: r for name, r in found.items() if r > bounds[name]} == {}


def test_upsampling_is_the_same_by_products_and_by_shifts(rng):
    x = rng.normal(size=(2, 3, 5, 2)).astype(np.float32)
    everything = np.ones((2, 3, 5, 1), bool)
    np.testing.assert_allclose(upsample(x), upsample(x, everything), atol=1e-6)
    wide = rng.normal(size=(1, 2, MAX_PRODUCT_SIDE + 1, 1)).astype(np.float32)
    np.testing.assert_allclose(upsample(wide)[:, :, :100], upsample(wide[:, :, :60])[:, :, :100], atol=1e-6)
