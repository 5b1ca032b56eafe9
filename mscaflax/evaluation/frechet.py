"""Distances between two sets of images: the Fréchet distance on VGG-16 features, and KID beside it.

The Fréchet distance of two sets of features is that of two Gaussians with their means and covariances (Dowson
and Landau, 1982), used for images by Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter, "GANs Trained by a
Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017. Only the distance on the
features of one Inception-v3 is called FID. KID, the kernel distance, is an unbiased estimate of the squared
maximum mean discrepancy: Bińkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", ICLR 2018, section
4.

Everything but the network is numpy in float64. Shapes: n images or rows, d features.
"""

import dataclasses
import functools
import math

import jax
import numpy as np
from jax import lax

from mscaflax.data.pixels import to_float, to_uint8
from mscaflax.nets.vgg import Params, vgg16_taps

_BLOCK = 1024  # rows of a kernel matrix held at once


@jax.jit
def mean_relu5_3(params: Params, images: jax.Array) -> jax.Array:
    """`vgg_features` of float images in [-1, 1], on the device."""
    return vgg16_taps(params, images, precision=lax.Precision.HIGHEST)[-1].mean(axis=(1, 2))


def vgg_features(params: Params, images: np.ndarray) -> np.ndarray:
    """The features that the distances compare, one vector per image.

    Definition: the image is rounded to 8 bits, scaled to [-1, 1], not resized, and passed through VGG-16 with
    ImageNet weights (`mscaflax.nets.vgg`), in float32 at the highest precision; the features are the means
    of relu5_3 over its positions. Distances of images of different sizes are different numbers.

    Args:
      params: of `mscaflax.nets.vgg.load_vgg16`.
      images: [n, h, w, 3], uint8 or float in [-1, 1] (rounded to 8 bits); h and w at least 16. Every new
        shape is compiled anew.

    Returns:
      float32 [n, 512], at least 0.

    Raises:
      ValueError: images of another rank, too small or not finite.
    """
    return np.asarray(mean_relu5_3(params, to_float(to_uint8(images))))


def _finite_rows(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if not np.isfinite(features).all():
        raise ValueError("a feature is not finite")
    return features


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Weighted mean and covariance that can be merged, whatever batches and devices the rows came from.

    Attributes:
      count: the sum of the weights; the number of rows where they are 0 and 1.
      mean: float64 [d], zeros if nothing counts.
      scatter: float64 [d, d], the sum of weight · (row - mean)(row - mean)ᵀ.
    """

    count: float
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, mask: np.ndarray | None = None) -> "Moments":
        """The moments of rows.

        Args:
          features: [n, d]; n may be 0. Rows of weight zero may be anything, NaN included.
          mask: [n] weights, at least 0; a weight of 2 counts as the row given twice. Default: all ones.

        Raises:
          ValueError: shapes do not fit, a weight is negative, or a row that counts is not finite.
        """
        features = np.asarray(features)
        weights = np.ones(features.shape[:1]) if mask is None else np.asarray(mask, np.float64)
        if features.ndim != 2 or weights.shape != features.shape[:1]:
            raise ValueError(
                f"features must be [n, d] and the mask [n], got {features.shape}, {weights.shape}"
            )
        if not (weights >= 0).all():
            raise ValueError("a weight is negative or not a number")
        rows, weights = _finite_rows(features[weights > 0]), weights[weights > 0]
        count = math.fsum(weights)
        mean = weights @ rows / count if count else np.zeros(features.shape[1])
        centred = rows - mean
        return cls(count, mean, (centred * weights[:, None]).T @ centred)

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both together.

        The update of Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances", 1979: no difference of large sums, so that a mean far from 0 costs no digits.

        Raises:
          ValueError: the numbers of features differ.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"moments of {self.mean.size} and of {other.mean.size} features do not merge")
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        difference = other.mean - self.mean
        mean = self.mean + difference * (other.count / count)
        between = np.outer(difference, difference) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    def covariance(self) -> np.ndarray:
        """float64 [d, d], the unbiased covariance: scatter / (count - 1).

        Raises:
          ValueError: the count is not above 1.
        """
        if self.count <= 1:
            raise ValueError(f"a covariance needs more than one row, got {self.count:g}")
        return self.scatter / (self.count - 1)

    @functools.cached_property
    def root(self) -> np.ndarray:
        """A factor [d, rank] with factor · factorᵀ = covariance; raises as `covariance`.

        Kept, since real images meet several sets, and thousands of features take seconds.
        """
        values, vectors = np.linalg.eigh(self.covariance())
        # Below this an eigenvalue is rounding, and its root would be as large as 1e-8 of the largest one.
        kept = values > values[-1] * values.size * np.finfo(np.float64).eps
        return vectors[:, kept] * np.sqrt(values[kept])


@dataclasses.dataclass(frozen=True)
class FrechetDistance:
    """A Fréchet distance, and how far to trust it.

    Attributes:
      value: the distance, at least 0, in squared units of the features.
      n: the counts of the two sets.
      features: d.
      warning: what to know before quoting the number, in one line; None if nothing.
    """

    value: float
    n: tuple[float, float]
    features: int
    warning: str | None


def frechet_distance(a: Moments, b: Moments) -> FrechetDistance:
    """The Fréchet distance of two Gaussians, ‖μ_a - μ_b‖² + tr(S_a) + tr(S_b) - 2 tr((S_a S_b)^½).

    The last trace is the sum of the square roots of the eigenvalues of the symmetric S_a^½ S_b S_a^½. These
    roots are the singular values of S_a^½ S_b^½, and are computed as such: nothing complex can arise, and
    covariances without full rank (fewer images than features) cost no digits. Heusel et al. 2017, equation 6.

    Args:
      a, b: the moments of the two sets; the order does not matter.

    Raises:
      ValueError: the numbers of features differ, or a set has fewer than two rows.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"moments of {a.mean.size} and of {b.mean.size} features do not compare")
    covariances = a.covariance(), b.covariance()
    # A matrix without columns has no singular values: all rows of a set are equal.
    roots = np.linalg.svd(a.root.T @ b.root, compute_uv=False)
    value = ((a.mean - b.mean) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * roots.sum()
    n, features = min(a.count, b.count), a.mean.size
    warning = None
    if n < features:
        warning = (
            f"the Fréchet distance of {n:g} images, fewer than its {features} features, is far too high: "
            "compare it only with distances of as many images"
        )
    return FrechetDistance(max(float(value), 0.0), (a.count, b.count), features, warning)


@dataclasses.dataclass(frozen=True)
class KernelDistance:
    """A KID.

    Attributes:
      value: the unbiased estimate; about 0, and below it half of the time, where the sets do not differ.
      error: its standard error; None where a set has fewer than four rows.
      n: the numbers of rows of the two sets.
    """

    value: float
    error: float | None
    n: tuple[int, int]


def _pair_sums(x: np.ndarray, y: np.ndarray, in_x: np.ndarray, in_y: np.ndarray) -> np.ndarray:
    """Σ_ij in_x[i, s] k(x_i, y_j) in_y[j, s] for every subset s; rows [n, d], subsets [n, s], sums [s]."""
    total = np.zeros(in_x.shape[1])
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        kernel = (x[rows] @ y.T / x.shape[1] + 1) ** 3
        total += (in_x[rows] * (kernel @ in_y)).sum(0)
    return total


def _draw_halves(rng: np.random.Generator, n: int, subsets: int) -> np.ndarray:
    """[n, 1 + subsets] of 0 and 1: all rows in the first column, a random half in each further one."""
    halves = np.arange(n)[:, None].repeat(subsets, 1) < n // 2
    return np.concatenate([np.ones((n, 1)), rng.permuted(halves, axis=0)], axis=1)


def kernel_distance(a: np.ndarray, b: np.ndarray, *, seed: int = 0, subsets: int = 100) -> KernelDistance:
    """KID: the unbiased squared maximum mean discrepancy under the kernel k(x, y) = (x·y/d + 1)³.

    value = Σ_{i≠j} k(a_i, a_j) / (n(n-1)) + Σ_{i≠j} k(b_i, b_j) / (m(m-1)) - 2 Σ_{i,j} k(a_i, b_j) / (nm),
    over all rows, where Bińkowski et al. 2018 average over random subsets of 1,000.

    The standard error is the delete-half jackknife (Shao and Wu, "A General Theory for Jackknife Variance
    Estimation", Annals of Statistics 17(3), 1989): the deviation of the same estimate over random halves of
    both sets, which is, to first order, that of the whole estimate over new images. Where the two sets come
    from one distribution, the first order vanishes, and the error is √3 times too large.

    Args:
      a, b: finite features [n, d] and [m, d]; n and m at least 2. Time grows with (n+m)², memory with n+m.
      seed: of the halves; the same call gives the same error.
      subsets: the number of halves, at least 2.

    Raises:
      ValueError: shapes do not fit, there are too few rows or subsets, or a feature is not finite.
    """
    a, b = _finite_rows(a), _finite_rows(b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features must be [n, d] and [m, d], n and m at least 2: {a.shape}, {b.shape}")
    if subsets < 2:
        raise ValueError(f"a standard error needs at least two subsets, got {subsets}")
    small = min(len(a), len(b)) < 4
    rng = np.random.default_rng(seed)
    in_a, in_b = (_draw_halves(rng, len(x), 0 if small else subsets) for x in (a, b))

    def mean_within(x: np.ndarray, in_x: np.ndarray) -> np.ndarray:
        own = ((x**2).sum(1) / x.shape[1] + 1) ** 3 @ in_x
        size = in_x.sum(0)
        return (_pair_sums(x, x, in_x, in_x) - own) / (size * (size - 1))

    mean_across = _pair_sums(a, b, in_a, in_b) / (in_a.sum(0) * in_b.sum(0))
    values = mean_within(a, in_a) + mean_within(b, in_b) - 2 * mean_across
    error = None if small else float(values[1:].std(ddof=1))
    return KernelDistance(float(values[0]), error, (len(a), len(b)))
