"""PSNR and SSIM of 8-bit images, and intervals of means over photos.

Images come as float [-1, 1] and are rounded to 8 bits first, as a saved PNG would be: a metric of unrounded
images is a number that nobody can reproduce from the files. Everything here is numpy in float64.
"""

from typing import Any

import numpy as np
from scipy.ndimage import correlate1d
from scipy.stats import t

from mscaflax.data.pixels import to_uint8

_SIGMA, _RADIUS = 1.5, 5
SSIM_WINDOW = 2 * _RADIUS + 1


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"images must be two arrays of one shape [b, h, w, c], got {a.shape} and {b.shape}")
    return to_uint8(a).astype(np.float64), to_uint8(b).astype(np.float64)


def masked_mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Means over the positions that a mask shows.

    Args:
      values: [b, h, w].
      mask: bool [b, h, w].

    Returns:
      float64 [b]; NaN where the mask is empty.
    """
    count = mask.sum(axis=(1, 2))
    total = np.where(mask, values, 0.0).sum(axis=(1, 2), dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def psnr(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Peak signal-to-noise ratio per image, in dB, over all pixels and channels or those that a mask shows.

    Args:
      a, b: [b, h, w, c], uint8 or float in [-1, 1]; rounded to 8 bits.
      mask: bool [b, h, w]; None for all pixels.

    Returns:
      float64 [b], 10 log10(255² / mean squared error); NaN where the mask is empty. Equal images, whose ratio
      is infinite, count as if one value in the image were off by one, so that averages stay finite.
    """
    a, b = _pair(a, b)
    mask = np.ones(a.shape[:3], bool) if mask is None else mask
    error = masked_mean(((a - b) ** 2).mean(axis=3), mask)
    values = np.maximum(mask.sum(axis=(1, 2)), 1) * a.shape[3]
    return 10 * np.log10(255.0**2 / np.maximum(error, 1 / values))


def _blur(x: np.ndarray) -> np.ndarray:
    kernel = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    kernel /= kernel.sum()
    for axis in (1, 2):
        x = correlate1d(x, kernel, axis=axis, mode="reflect")
    return x


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity around each position.

    Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment", IEEE TIP 13(4), 2004: Gaussian window of
    11x11 pixels with a deviation of 1.5, K1 = 0.01, K2 = 0.03, range 255, per channel, averaged over the
    channels.

    Args:
      a, b: [b, h, w, c] with h and w at least 11, uint8 or float in [-1, 1]; rounded to 8 bits.

    Returns:
      float64 [b, h - 10, w - 10], at most 1: the positions whose window lies inside of the image.

    Raises:
      ValueError: shapes differ or are smaller than the window.
    """
    a, b = _pair(a, b)
    if min(a.shape[1:3]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, got {a.shape}")
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a**2
    var_b = _blur(b * b) - mean_b**2
    cov = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    score = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    score /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return inside(score).mean(axis=3)


def inside(x: np.ndarray) -> np.ndarray:
    """[b, h, w, ...] without the border where SSIM's window would leave the image."""
    return x[:, _RADIUS:-_RADIUS, _RADIUS:-_RADIUS]


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity per image, float64 [b], at most 1: the mean of `ssim_map`, which see."""
    return ssim_map(a, b).mean(axis=(1, 2))


def summarize(
    values: np.ndarray, photos: np.ndarray, seed: int = 0, exemplars: np.ndarray | None = None
) -> dict[str, Any] | None:
    """{"mean", "low", "high"}: the mean of [n] values and its 95% interval, to six decimals.

    `photos` [n] are the photos that the values come from, `exemplars` [n] those of their exemplars. The
    interval is that of `two_way_interval`; without exemplars, which are then held fixed, that of
    `bootstrap_interval`. low and high are None where it finds none. Where values are NaN, the others count
    alone, and "n" tells how many they are. None without any.
    """
    counted = np.isfinite(values)
    if not counted.any():
        return None
    values = np.asarray(values)[counted]
    photos = np.asarray(photos)[counted]
    if exemplars is None:
        interval = bootstrap_interval(values, photos, seed=seed)
    else:
        interval = two_way_interval(values, photos, np.asarray(exemplars)[counted])
    low, high = interval or (None, None)
    found = {"mean": float(np.mean(values)), "low": low, "high": high}
    found = {key: None if value is None else round(value, 6) for key, value in found.items()}
    return found if counted.all() else found | {"n": int(counted.sum())}


def bootstrap_interval(
    values: np.ndarray, photos: np.ndarray, *, seed: int = 0, samples: int = 2000, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean of values, several of which may come from one photo.

    The values of one photo are not independent. So photos are drawn, each with all its values: the cluster
    bootstrap (Field and Welsh, "Bootstrapping clustered data", JRSS B 69(3), 2007). Where every photo has one
    value it is the ordinary bootstrap.

    Args:
      values: [n], n at least 1, finite.
      photos: integers [n], the photo that each value comes from.
      seed: of the resampling; the same call gives the same interval.
      samples: number of resamples.
      level: the share of resampled means inside of the interval.

    Returns:
      (low, high); None if all values come from one photo, which cannot tell how photos differ.

    Raises:
      ValueError: no values, or shapes that differ.
    """
    values, photos = np.asarray(values, np.float64), np.asarray(photos)
    if values.ndim != 1 or not values.size or photos.shape != values.shape:
        raise ValueError(f"values and photos must be [n], n at least 1: {values.shape}, {photos.shape}")
    _, group, counts = np.unique(photos, return_inverse=True, return_counts=True)
    if counts.size < 2:
        return None
    drawn = resamples(counts.size, seed, samples)
    return percentile_interval(drawn @ np.bincount(group, values) / (drawn @ counts), level)


def two_way_interval(
    values: np.ndarray, photos: np.ndarray, exemplars: np.ndarray, *, level: float = 0.95
) -> tuple[float, float] | None:
    """Interval of the mean of values that share targets' photos, exemplars' photos or both.

    Two values with the same target or the same exemplar are not independent. The variance of the mean sums
    the products of all such values' deviations (Cameron, Gelbach and Miller, "Robust inference with multiway
    clustering", Journal of Business & Economic Statistics 29(2), 2011), and is not taken below that of either
    clustering alone. The quantile is Student's, of the scarcer kind of photos.

    Args:
      values: [n], n at least 1, finite.
      photos: integers [n], the photo that each value's target comes from.
      exemplars: integers [n], the photo that its exemplar comes from.
      level: how often such intervals hold the mean over other targets and exemplars.

    Returns:
      (low, high); None if all values come from one target or one exemplar, which cannot tell how they differ.

    Raises:
      ValueError: no values, or shapes that differ.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size or not values.shape == np.shape(photos) == np.shape(exemplars):
        raise ValueError(
            f"values, photos and exemplars must be [n], n at least 1: {values.shape}, {np.shape(photos)}, "
            f"{np.shape(exemplars)}"
        )
    mean = values.mean()
    variances = []
    kinds = [np.unique(some, return_inverse=True)[1] for some in (photos, exemplars)]
    fewest = min(kind.max() + 1 for kind in kinds)
    if fewest < 2:
        return None
    for groups in (*kinds, kinds[0] * values.size + kinds[1]):
        sums = np.bincount(groups, values - mean)
        variances.append((sums**2).sum() / values.size**2)
    by_photo, by_exemplar, by_both = variances
    variance = max(by_photo, by_exemplar, by_photo + by_exemplar - by_both) * fewest / (fewest - 1)
    reach = t.ppf((1 + level) / 2, fewest - 1) * np.sqrt(variance)
    return float(mean - reach), float(mean + reach)


def resamples(photos: int, seed: int, samples: int = 2000) -> np.ndarray:
    """How often each of `photos` photos was drawn, with replacement: float64 [samples, photos]."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(photos, size=photos) for _ in range(samples))
    return np.stack([np.bincount(places, minlength=photos) for places in drawn]).astype(np.float64)


def percentile_interval(resampled: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """(low, high), between which the share `level` of a statistic's resampled values [samples] lies."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
