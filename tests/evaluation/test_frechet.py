import dataclasses
import itertools

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from mscaflax.data.pixels import to_float
from mscaflax.evaluation.frechet import Moments, frechet_distance, kernel_distance, vgg_features
from mscaflax.nets.vgg import IMAGENET_MEAN, IMAGENET_STD, STAGES


def features(seed, n, d, mean=0.0):
    """Correlated rows with a spectrum over four orders of magnitude, as network features have."""
    rng = np.random.default_rng([seed, d])
    mix = rng.normal(size=(d, d)) * np.logspace(0, -2, d)
    return rng.normal(size=(n, d)) @ mix + rng.normal(size=d) + mean


def distance(a, b):
    return frechet_distance(Moments.of(a), Moments.of(b)).value


def test_moments_match_numpy():
    x = features(0, 50, 6)
    weights = np.random.default_rng(1).integers(0, 4, 50)
    found = Moments.of(x, weights)
    assert found.count == weights.sum()
    np.testing.assert_allclose(found.mean, np.average(x, axis=0, weights=weights), rtol=1e-12)
    np.testing.assert_allclose(found.covariance(), np.cov(x.T, fweights=weights), rtol=1e-10)
    np.testing.assert_allclose(
        Moments.of(x.astype(np.float32)).covariance(), np.cov(x.T), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_parts_merged_are_the_whole(mean):
    x = features(2, 101, 8, mean)
    mask = np.random.default_rng(3).integers(0, 2, 101)
    whole = Moments.of(x[mask > 0])
    for batch in (1, 7, 64, 101, 128):
        merged = Moments.of(np.zeros((0, 8)))
        for start in range(0, 101, batch):
            part = slice(start, start + batch)
            merged = merged.merge(Moments.of(x[part], mask[part]))
        assert merged.count == whole.count
        np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-10)
        np.testing.assert_allclose(
            merged.scatter, whole.scatter, rtol=1e-10, atol=1e-10 * whole.scatter.max()
        )


def test_merging_halves_in_either_order_is_the_same():
    a, b = Moments.of(features(4, 9, 5)), Moments.of(features(5, 30, 5, 3.0))
    for x, y in itertools.pairwise([a.merge(b), b.merge(a)]):
        np.testing.assert_allclose(x.mean, y.mean, rtol=1e-12)
        np.testing.assert_allclose(x.scatter, y.scatter, rtol=1e-12, atol=1e-12)


def test_rows_of_weight_zero_change_nothing():
    x = features(6, 20, 4)
    padded = np.concatenate([x[:9], np.full((3, 4), np.nan), x[9:], np.full((1, 4), np.inf)])
    mask = np.isfinite(padded[:, 0])
    found, expected = Moments.of(padded, mask), Moments.of(x)
    assert found.count == expected.count == 20
    np.testing.assert_array_equal(found.mean, expected.mean)
    np.testing.assert_array_equal(found.scatter, expected.scatter)
    nothing = Moments.of(padded[~mask], np.zeros(4))
    assert nothing.count == 0
    for merged in (nothing.merge(expected), expected.merge(nothing)):
        np.testing.assert_array_equal(merged.scatter, expected.scatter)


def test_moments_of_wrong_input():
    x = features(7, 5, 3)
    with pytest.raises(ValueError, match="negative"):
        Moments.of(x, [1, 1, -1, 1, 1])
    with pytest.raises(ValueError, match="negative"):
        Moments.of(x, [1, 1, np.nan, 1, 1])
    with pytest.raises(ValueError, match="mask"):
        Moments.of(x, np.ones(4))
    with pytest.raises(ValueError, match="finite"):
        Moments.of(np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="do not merge"):
        Moments.of(x).merge(Moments.of(x[:, :2]))
    with pytest.raises(ValueError, match="more than one row"):
        Moments.of(x[:1]).covariance()
    with pytest.raises(ValueError, match="do not compare"):
        frechet_distance(Moments.of(x), Moments.of(x[:, :2]))


def test_distance_matches_the_matrix_square_root():
    a, b = features(8, 400, 24), features(9, 300, 24, 0.5)
    s_a, s_b = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s_a + s_b - 2 * sqrtm(s_a @ s_b).real)
    found = frechet_distance(Moments.of(a), Moments.of(b))
    assert found.value == pytest.approx(expected, rel=1e-8)
    assert found.n == (400, 300) and found.features == 24 and found.warning is None


def test_distance_of_independent_gaussians():
    """Without correlations the distance is Σ (μ_a - μ_b)² + (σ_a - σ_b)²."""
    rng = np.random.default_rng(10)
    means, deviations = rng.normal(size=(2, 12)), rng.uniform(0, 3, (2, 12))
    deviations[0, :4] = 0
    deviations[1, 2:6] = 0
    a, b = (Moments(100, m, np.diag(99 * s**2)) for m, s in zip(means, deviations, strict=True))
    expected = ((means[0] - means[1]) ** 2 + (deviations[0] - deviations[1]) ** 2).sum()
    assert frechet_distance(a, b).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [2, 30, 300])
def test_equal_sets_have_distance_zero(n):
    x = features(11, n, 64)
    assert 0 <= distance(x, x) < 1e-11 * np.trace(np.cov(x.T))
    assert distance(x, x[::-1] + 2) == pytest.approx(4 * 64, rel=1e-11)


@pytest.mark.parametrize("n", [20, 200])
def test_distance_is_symmetric_and_invariant_under_rotation(n):
    a, b = features(12, n, 40), features(13, n, 40)
    rotation = ortho_group.rvs(40, random_state=14)
    expected = distance(a, b)
    assert distance(b, a) == pytest.approx(expected, rel=1e-11)
    assert distance(a @ rotation + 5, b @ rotation + 5) == pytest.approx(expected, rel=1e-9)


def test_fewer_images_than_features():
    """Full-rank data turned into a space of many more dimensions keeps its distance, and brings a warning."""
    a, b = features(15, 60, 10), features(16, 50, 10)
    turn = ortho_group.rvs(128, random_state=17)[:10]
    found = frechet_distance(Moments.of(a @ turn), Moments.of(b @ turn))
    assert found.value == pytest.approx(distance(a, b), rel=1e-10)
    assert "50 images" in found.warning and "128 features" in found.warning and "\n" not in found.warning
    assert isinstance(found.value, float)
    assert dataclasses.asdict(found)["n"] == (60, 50)
    few = distance(features(18, 20, 128)[:20], features(18, 40, 128)[20:])
    assert np.isfinite(few) and few > 0


def test_sets_without_spread():
    ones = np.ones((3, 5))
    assert distance(ones, ones) == 0
    assert distance(ones, 3 * ones) == pytest.approx(20)
    x = features(19, 30, 5)
    assert distance(x, ones) == pytest.approx(((x.mean(0) - 1) ** 2).sum() + np.trace(np.cov(x.T)))


def slow_kernel_distance(a, b):
    def kernel(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def within(rows):
        pairs = list(itertools.permutations(rows, 2))
        return sum(kernel(x, y) for x, y in pairs) / len(pairs)

    across = sum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))
    return within(a) + within(b) - 2 * across


def test_kernel_distance_matches_a_double_loop():
    a, b = features(20, 13, 4), features(21, 8, 4)
    found = kernel_distance(a, b)
    assert found.value == pytest.approx(slow_kernel_distance(a, b), rel=1e-10)
    assert found.n == (13, 8) and isinstance(found.value, float) and found.error > 0
    assert kernel_distance(b, a).value == pytest.approx(found.value, rel=1e-10)
    assert kernel_distance(a[:2], b[:3]).value == pytest.approx(slow_kernel_distance(a[:2], b[:3]), rel=1e-10)
    assert kernel_distance(a[:2], b).error is None


def test_kernel_distance_does_not_depend_on_the_block(monkeypatch):
    a, b = features(22, 30, 6), features(23, 41, 6)
    expected = kernel_distance(a, b)
    monkeypatch.setattr("mscaflax.evaluation.frechet._BLOCK", 7)
    found = kernel_distance(a, b)
    assert found.value == pytest.approx(expected.value, rel=1e-10)
    assert found.error == pytest.approx(expected.error, rel=1e-8)


def test_error_is_the_deviation_over_random_halves():
    a, b = features(24, 10, 3), features(25, 8, 3)
    found = kernel_distance(a, b, seed=5, subsets=3000)
    rng = np.random.default_rng(26)
    halves = [slow_kernel_distance(rng.permutation(a)[:5], rng.permutation(b)[:4]) for _ in range(1500)]
    assert found.error == pytest.approx(np.std(halves, ddof=1), rel=0.1)
    assert kernel_distance(a, b, seed=5, subsets=3000) == found
    other = kernel_distance(a, b, seed=6, subsets=3000)
    assert other.value == found.value and other.error != found.error


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_value_is_unbiased_and_error_is_its_deviation(shift):
    rng = np.random.default_rng(27)
    found = [kernel_distance(rng.normal(size=(40, 8)), rng.normal(shift, 1, (60, 8))) for _ in range(200)]
    values = np.array([f.value for f in found])
    truth = kernel_distance(rng.normal(size=(2000, 8)), rng.normal(shift, 1, (2000, 8)), subsets=2)
    assert (
        abs(values.mean() - (truth.value if shift else 0)) < 4 * values.std() / np.sqrt(200) + 2 * truth.error
    )
    error = np.sqrt(np.mean([f.error**2 for f in found]))
    assert error / values.std() == pytest.approx(1 if shift else np.sqrt(3), rel=0.15)


def test_kernel_distance_of_wrong_input():
    x = features(28, 5, 3)
    for a, b in [(x, x[:, :2]), (x[:1], x), (x, x[0])]:
        with pytest.raises(ValueError, match=r"\[n, d\]"):
            kernel_distance(a, b)
    with pytest.raises(ValueError, match="finite"):
        kernel_distance(x, x * np.inf)
    with pytest.raises(ValueError, match="two subsets"):
        kernel_distance(x, x, subsets=1)


def numpy_features(params, images):
    """VGG-16 and the mean over positions in float64, by explicit sums over the 3x3 window."""
    x = (images.astype(np.float64) / 127.5 - 1 - IMAGENET_MEAN) / IMAGENET_STD
    convs = iter(params)
    for number, stage in enumerate(STAGES):
        if number:
            n, h, w, c = x.shape
            x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
        for _ in stage:
            conv = next(convs)
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            shifted = [padded[:, i : i + x.shape[1], j : j + x.shape[2]] for i in range(3) for j in range(3)]
            kernel = conv["kernel"].astype(np.float64).reshape(9, *conv["kernel"].shape[2:])
            x = np.maximum(sum(s @ k for s, k in zip(shifted, kernel, strict=True)) + conv["bias"], 0)
    return x.mean((1, 2))


def test_features_are_the_means_of_relu5_3_of_8_bit_images():
    rng = np.random.default_rng(29)
    channels = [3] + [6] * 12 + [10]
    params = [
        {
            "kernel": rng.normal(0, np.sqrt(2 / (9 * c)), (3, 3, c, d)).astype(np.float32),
            "bias": rng.normal(0, 0.1, d).astype(np.float32),
        }
        for c, d in itertools.pairwise(channels)
    ]
    images = rng.integers(0, 256, (3, 48, 33, 3)).astype(np.uint8)
    found = vgg_features(params, images)
    assert type(found) is np.ndarray and found.dtype == np.float32 and found.shape == (3, 10)
    np.testing.assert_allclose(found, numpy_features(params, images), rtol=1e-4, atol=1e-5)
    assert found.std(0).max() > 1e-3
    nearly = to_float(images) + rng.uniform(-0.003, 0.003, images.shape)
    np.testing.assert_array_equal(vgg_features(params, nearly), found)
    with pytest.raises(ValueError, match="at least 16"):
        vgg_features(params, images[:, :15])
    with pytest.raises(ValueError, match="not finite"):
        vgg_features(params, nearly * np.nan)
