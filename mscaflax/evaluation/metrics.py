"""PSNR and SSIM of 8-bit images, and averages that can be merged.

Images come as float [-1, 1] and are rounded to 8 bits first, as a saved PNG would be: a metric of unrounded
images is a number that nobody can reproduce from the files. Everything here is numpy in float64.
"""

import dataclasses
import math

import numpy as np
from scipy.ndimage import correlate1d

from mscaflax.data.pixels import to_uint8


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"images must be two arrays of one shape [b, h, w, c], got {a.shape} and {b.shape}")
    return to_uint8(a).astype(np.float64), to_uint8(b).astype(np.float64)


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio per image, in dB, over all pixels and channels.

    Args:
      a, b: [b, h, w, c], uint8 or float in [-1, 1]; rounded to 8 bits.

    Returns:
      float64 [b], 10 log10(255² / mean squared error). Equal images, whose ratio is infinite, count as if one
      value in the image were off by one, so that averages stay finite.
    """
    a, b = _pair(a, b)
    error = ((a - b) ** 2).mean(axis=(1, 2, 3))
    return 10 * np.log10(255.0**2 / np.maximum(error, 1 / np.prod(a.shape[1:])))


def _blur(x: np.ndarray) -> np.ndarray:
    sigma, radius = 1.5, 5
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (1, 2):
        x = correlate1d(x, kernel, axis=axis, mode="reflect")
    return x


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity per image.

    Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment", IEEE TIP 13(4), 2004: Gaussian window of
    11x11 pixels with a deviation of 1.5, K1 = 0.01, K2 = 0.03, range 255, per channel, averaged over the
    channels and over the positions whose window lies inside of the image.

    Args:
      a, b: [b, h, w, c] with h and w at least 11, uint8 or float in [-1, 1]; rounded to 8 bits.

    Returns:
      float64 [b], at most 1.

    Raises:
      ValueError: shapes differ or are smaller than the window.
    """
    a, b = _pair(a, b)
    if min(a.shape[1:3]) < 11:
        raise ValueError(f"SSIM needs at least 11x11 pixels, got {a.shape}")
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a**2
    var_b = _blur(b * b) - mean_b**2
    cov = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    score = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    score /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return score[:, 5:-5, 5:-5].mean(axis=(1, 2, 3))


@dataclasses.dataclass(frozen=True)
class Mean:
    """A weighted mean that can be merged, whatever batches and devices the values came from.

    Attributes:
      total: sum of weight times value.
      weight: sum of the weights.
    """

    total: float = 0.0
    weight: float = 0.0

    @classmethod
    def of(cls, values: np.ndarray, mask: np.ndarray | None = None) -> "Mean":
        """The mean of `values`, weighted by `mask` of the same shape (default: all ones).

        Values of weight zero may be anything, NaN included: they are the padding of a short batch.

        Raises:
          ValueError: the shapes differ, or a weight is negative.
        """
        values = np.asarray(values, np.float64)
        weights = np.ones_like(values) if mask is None else np.asarray(mask, np.float64)
        if weights.shape != values.shape:
            raise ValueError(f"values and mask must have one shape, got {values.shape} and {weights.shape}")
        if (weights < 0).any():
            raise ValueError("a weight is negative")
        kept = weights > 0
        return cls(math.fsum((values[kept] * weights[kept]).ravel()), math.fsum(weights[kept].ravel()))

    def merge(self, other: "Mean") -> "Mean":
        """The mean of both together."""
        return Mean(self.total + other.total, self.weight + other.weight)

    def compute(self) -> float:
        """The mean; NaN of nothing."""
        return self.total / self.weight if self.weight else math.nan


def bootstrap_interval(
    values: np.ndarray, *, seed: int = 0, samples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of independent values.

    Args:
      values: [n], n at least 1, finite.
      seed: of the resampling; the same call gives the same interval.
      samples: number of resamples.
      level: the share of resampled means inside of the interval.

    Returns:
      (low, high).

    Raises:
      ValueError: no values.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"values must be [n] with n at least 1, got shape {values.shape}")
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(values.size, size=values.size)].mean() for _ in range(samples)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
