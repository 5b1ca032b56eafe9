"""The swap test: does the style of the output follow the exemplar?

One layout c is synthesized twice, in the style of exemplar a and of exemplar b (all three from different
photos). With y_a and y_b the outputs, the triple passes if

    d(y_a, a) + d(y_b, b) < d(y_a, b) + d(y_b, a),

that is, if each output is more like its own exemplar than like the other's. The distance compares colours
class by class,

    d(y, e) = Σ_k w_k ‖ s_k(y) − s_k(e) ‖,

where s_k is the mean and the standard deviation of the RGB values (8-bit levels) in class k, a vector of
six; k runs over the classes that cover at least 1% of y_a, of y_b, of a and of b each; and w_k is the mean
area of class k in y_a and y_b, scaled so that the weights add up to 1. An output has the label map it was
made from, so for outputs these are the classes that c, a and b share, weighted by their area in c. Unlabelled
pixels belong to no class. A triple without a shared class is not counted; a tie is a failure. Chance is 50%:
a network that ignores the exemplar, or follows it at random, passes no more than that.

The reference is the score of real images under the same rule: y_a is then the true patch of a's photo, i.e.
the target patch that was cut from the photo of exemplar a, with its own label map; y_b likewise. Photos vary
within themselves, so even the truth stays well below 100%. Where the true answers are known (scenes: the
layout c rendered in the style of a and of b), their score stands there too.

Apart stands the half of the triples whose exemplars differ most, of those that the outputs and all references
count. They differ by

    D(a, b) = Σ_k v_k ‖ s_k(a) − s_k(b) ‖

over the classes that cover at least 1% of a and of b each, with v_k their mean area in a and b, scaled so
that the weights add up to 1. No output enters it, so it is one half for everything that is compared on it.

Definition: this project's. Shapes: n images or triples, h, w, C classes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mscaflax.data.pixels import to_uint8
from mscaflax.evaluation.metrics import summarize

MIN_AREA = 0.01


@dataclasses.dataclass(frozen=True)
class ClassColours:
    """Colour statistics of n images, class by class.

    Attributes:
      area: float64 [n, C], the share of the image's pixels that each class covers.
      style: float64 [n, C, 6], means and standard deviations of R, G, B in 8-bit levels; 0 where absent.
    """

    area: np.ndarray
    style: np.ndarray

    def take(self, indices: np.ndarray) -> "ClassColours":
        """The statistics of the images at `indices`."""
        return ClassColours(self.area[indices], self.style[indices])


def class_colours(images: np.ndarray, labels: np.ndarray, num_classes: int) -> ClassColours:
    """Measures the colours of every class in every image.

    Args:
      images: [n, h, w, 3], uint8 or float in [-1, 1] (rounded to 8 bits).
      labels: integers [n, h, w] in 0..C; C, unlabelled, is left out.
      num_classes: C.

    Raises:
      ValueError: shapes do not fit, or an id lies outside 0..C.
    """
    labels = np.asarray(labels)
    if labels.shape != np.shape(images)[:3] or np.shape(images)[3:] != (3,):
        raise ValueError(f"images must be [n, h, w, 3] and labels fit: {np.shape(images)}, {labels.shape}")
    if labels.size and not 0 <= labels.min() <= labels.max() <= num_classes:
        raise ValueError(f"label ids {labels.min()}..{labels.max()} do not lie in 0..{num_classes}")
    n, pixels = labels.shape[0], labels.shape[1] * labels.shape[2]
    levels = to_uint8(images).reshape(-1, 3).astype(np.int64)
    bins = (labels.reshape(n, -1) + np.arange(n)[:, None] * (num_classes + 1)).ravel()

    def sums(weights=None):
        total = np.bincount(bins, weights, minlength=n * (num_classes + 1))
        return total.reshape(n, num_classes + 1)[:, :num_classes].astype(np.float64)

    count = sums()
    divisor = np.maximum(count, 1)[..., None]
    mean = np.stack([sums(levels[:, i]) for i in range(3)], -1) / divisor
    square = np.stack([sums(levels[:, i] ** 2) for i in range(3)], -1) / divisor
    # Sums of integers below 2^53 are exact, but their difference may round below zero.
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return ClassColours(count / pixels, np.concatenate([mean, deviation], -1))


@dataclasses.dataclass(frozen=True)
class SwapScores:
    """The outcome of the swap test, triple by triple.

    Attributes:
      counted: bool [n], whether the triple shares a class.
      margin: float64 [n], d(y_a, b) + d(y_b, a) - d(y_a, a) - d(y_b, b); the triple passes if it is above 0.
        NaN where not counted.
    """

    counted: np.ndarray
    margin: np.ndarray

    @property
    def passed(self) -> np.ndarray:
        """bool [n]; False where not counted."""
        return self.counted & (np.nan_to_num(self.margin) > 0)


def score_swaps(y_a: ClassColours, y_b: ClassColours, a: ClassColours, b: ClassColours) -> SwapScores:
    """Scores n triples by the module's definition.

    Args:
      y_a, y_b: the outputs for exemplar a and b with the label map they were made from, or real images
        with their own label maps; each of n images.
      a, b: the exemplars.
    """
    weights = _weights((y_a, y_b, a, b), (y_a, y_b))
    own = _distance(weights, y_a, a) + _distance(weights, y_b, b)
    crossed = _distance(weights, y_a, b) + _distance(weights, y_b, a)
    counted = weights.any(-1)
    return SwapScores(counted, np.where(counted, crossed - own, np.nan))


def exemplar_distance(a: ClassColours, b: ClassColours) -> np.ndarray:
    """D(a, b) of the module's definition, float64 [n]; NaN where a and b share no class."""
    weights = _weights((a, b), (a, b))
    return np.where(weights.any(-1), _distance(weights, a, b), np.nan)


def most_different(distance: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The half (rounded up) of the triples in `among` with the largest distance of their exemplars.

    Args:
      distance: [n], of `exemplar_distance`.
      among: bool [n].

    Returns:
      bool [n].
    """
    candidates = np.flatnonzero(among)
    order = candidates[np.argsort(-distance[candidates], kind="stable")]
    half = np.zeros(among.shape, bool)
    half[order[: -(-candidates.size // 2)]] = True
    return half


def summarize_swaps(
    rows: Mapping[str, SwapScores], distance: np.ndarray, photos: np.ndarray, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """The swap test of several kinds of images, side by side.

    Args:
      rows: the scores of t triples, by kind of image.
      distance: float64 [t], of `exemplar_distance`.
      photos: int [t], the photo that a triple counts as: its layout's.
      seed: of the bootstrap.

    Returns:
      By kind: n; counted; `all`, the share of passes among the counted triples; half_n and `half`, the same
      among the half of those counted in all rows whose exemplars differ most. The shares as `summarize`, None
      where nothing counts.
    """
    # One half for all rows: other triples would be another test.
    half = most_different(distance, np.logical_and.reduce([score.counted for score in rows.values()]))
    found = {}
    for name, score in rows.items():
        found[name] = {"n": len(photos), "counted": int(score.counted.sum()), "half_n": int(half.sum())}
        for part, mask in {"all": score.counted, "half": half}.items():
            found[name][part] = summarize(score.passed[mask], photos[mask], seed)
    return found


def _weights(sharing: Sequence[ClassColours], measured: Sequence[ClassColours]) -> np.ndarray:
    """[n, C]: mean areas in `measured` of the classes that all of `sharing` show; a row's sum is 1 or 0."""
    shared = np.logical_and.reduce([x.area >= MIN_AREA for x in sharing])
    weights = np.where(shared, np.mean([x.area for x in measured], 0), 0)
    return weights / np.where(shared.any(-1), weights.sum(-1), 1)[:, None]


def _distance(weights: np.ndarray, x: ClassColours, y: ClassColours) -> np.ndarray:
    return (weights * np.sqrt(((x.style - y.style) ** 2).sum(-1))).sum(-1)


def draw_triples(photos: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draws (c, a, b): each entry a layout and two exemplars from three different photos.

    Args:
      photos: integers [m], the photo that each of the m layouts and exemplars comes from.
      count: number of triples. Layouts are taken in turn, so `count` = m uses each once.
      seed: the same call gives the same triples, and a larger `count` only appends.

    Returns:
      int64 [count, 3], indices into `photos`; [0, 3] if there are fewer than three different photos.
    """
    photos = np.asarray(photos)
    if np.unique(photos).size < 3:
        return np.zeros((0, 3), np.int64)
    triples = []
    for position in range(count):
        rng = np.random.default_rng([seed, position])
        c = position % photos.size
        a = rng.choice(np.flatnonzero(photos != photos[c]))
        b = rng.choice(np.flatnonzero((photos != photos[c]) & (photos != photos[a])))
        triples.append((c, a, b))
    return np.array(triples, np.int64).reshape(count, 3)
