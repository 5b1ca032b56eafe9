import numpy as np
import pytest
from scipy import stats

from mscaflax.data.pixels import to_float, to_uint8
from mscaflax.evaluation.metrics import bootstrap_interval, psnr, ssim, summarize, two_way_interval

skimage_metrics = pytest.importorskip("skimage.metrics")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (3, 6, 7, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    noise = rng.normal(0, [[[[5]]], [[[20]]], [[[60]]]], a.shape)
    return a, np.clip(a + noise, 0, 255).astype(np.uint8)


def test_psnr_matches_scikit_image(images):
    expected = [
        skimage_metrics.peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(*images, strict=True)
    ]
    np.testing.assert_allclose(psnr(*images), expected, rtol=1e-12)


def test_ssim_matches_scikit_image(images):
    expected = [
        skimage_metrics.structural_similarity(
            x,
            y,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=-1,
        )
        for x, y in zip(*images, strict=True)
    ]
    np.testing.assert_allclose(ssim(*images), expected, rtol=1e-10)


def test_equal_images(images):
    a = images[0]
    np.testing.assert_allclose(ssim(a, a), 1)
    off_by_one = a.copy()
    off_by_one[:, 0, 0, 0] ^= 1
    np.testing.assert_allclose(psnr(a, a), psnr(a, off_by_one))
    assert np.isfinite(psnr(a, a)).all()


def test_metrics_round_to_8_bits_first(images):
    a, b = images
    x, y = to_float(a), to_float(b)
    rng = np.random.default_rng(1)
    x, y = (z + rng.uniform(-0.003, 0.003, z.shape) for z in (x, y))
    np.testing.assert_array_equal(psnr(x, y), psnr(a, b))
    np.testing.assert_array_equal(ssim(x, y), ssim(a, b))


def test_rounding_is_exact_for_every_level_and_clips():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(to_float(levels)), levels)
    np.testing.assert_array_equal(to_uint8(np.array([-3.0, -1, 1, 1.5])), [0, 0, 255, 255])
    with pytest.raises(ValueError, match="not finite"):
        to_uint8(np.array([np.nan]))


def test_wrong_shapes(images):
    a, b = images
    with pytest.raises(ValueError, match="one shape"):
        psnr(a, b[:1])
    with pytest.raises(ValueError, match="11x11"):
        ssim(a[:, :10], b[:, :10])


def test_bootstrap_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(3)
    inside = 0
    for trial in range(200):
        low, high = bootstrap_interval(rng.normal(5, 2, 60), np.arange(60), seed=trial, samples=400)
        inside += low <= 5 <= high
    assert 0.88 <= inside / 200 <= 0.99
    nine = np.arange(9)
    assert bootstrap_interval(nine, nine) == bootstrap_interval(nine, nine)
    assert bootstrap_interval(np.ones(4), nine[:4]) == (1, 1)
    for values, photos in ([], []), ([1.0, 2], [0]):
        with pytest.raises(ValueError, match="at least 1"):
            bootstrap_interval(np.array(values), np.array(photos))


def test_bootstrap_interval_of_several_values_of_a_photo_covers_as_often_too():
    rng = np.random.default_rng(4)
    photos = rng.permutation(np.repeat(np.arange(30) * 7, 4))
    inside = naive = 0
    for trial in range(200):
        # What the values of a photo share is most of what they vary by.
        values = 5 + rng.normal(0, 2, 30)[photos // 7] + rng.normal(0, 0.5, 120)
        low, high = bootstrap_interval(values, photos, seed=trial, samples=400)
        inside += low <= 5 <= high
        low, high = bootstrap_interval(values, np.arange(120), seed=trial, samples=400)
        naive += low <= 5 <= high
    assert 0.88 <= inside / 200 <= 0.99 and naive / 200 < 0.75


def test_two_way_interval_covers_where_targets_and_exemplars_matter():
    rng = np.random.default_rng(5)
    photos, exemplars = np.repeat(np.arange(40), 3), np.concatenate([rng.permutation(40) for _ in range(3)])
    inside = fixed = 0
    for trial in range(400):
        values = 5 + rng.normal(0, 1, 40)[photos] + rng.normal(0, 2, 40)[exemplars] + rng.normal(0, 0.5, 120)
        low, high = two_way_interval(values, photos, exemplars)
        inside += low <= 5 <= high
        low, high = bootstrap_interval(values, photos, seed=trial, samples=400)
        fixed += low <= 5 <= high
    assert 0.92 <= inside / 400 <= 0.98 and fixed / 400 < 0.88


def test_two_way_interval_of_values_that_share_nothing_is_that_of_independent_ones():
    values, places = np.random.default_rng(6).normal(3, 2, 50), np.arange(50)
    expected = stats.t.interval(0.95, 49, values.mean(), stats.sem(values))
    np.testing.assert_allclose(two_way_interval(values, places, places[::-1]), expected)
    # One exemplar for all tells nothing of others.
    assert two_way_interval(values, places, np.full(50, 3)) is None
    some = np.where(places < 3, np.nan, values)
    summary = summarize(some, places, exemplars=places)
    assert summary["n"] == 47 and summary["low"] == pytest.approx(
        stats.t.interval(0.95, 46, values[3:].mean(), stats.sem(values[3:]))[0], abs=1e-6
    )
    with pytest.raises(ValueError, match="n at least 1"):
        two_way_interval(values, places, places[1:])


def test_photos_with_more_values_weigh_more():
    values, photos = np.array([0.0, 1, 1, 1]), np.array([8, 3, 3, 3])
    assert bootstrap_interval(values, photos) == (0, 1)
    # Drawn once each, which is half of the draws, they have the mean of all values.
    assert bootstrap_interval(values, photos, level=0.2) == (0.75, 0.75)


def test_one_photo_tells_no_interval():
    assert bootstrap_interval(np.arange(5.0), np.full(5, 3)) is None
