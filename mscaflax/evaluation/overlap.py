"""Outputs by class overlap: what becomes of classes that the exemplar lacks, and so of masking.

The overlap of a target and an exemplar is the share of the target's labelled pixels whose class occurs in the
exemplar. Pairs of different scenes are drawn so that each bin of overlaps has as many, and the outputs
are compared with the true answers: over all pixels, over those whose class occurs in the exemplar, and over
those whose class does not.
Shapes: n pairs in the list, k pairs of a bin, h, w, C classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mscaflax.evaluation import generation, reconstruction, truth
from mscaflax.evaluation.batches import Advance, Batches, ignore_progress
from mscaflax.evaluation.lpips import LpipsParams
from mscaflax.evaluation.metrics import summarize
from mscaflax.evaluation.pairlist import PairList

# Name to lowest overlap; a bin ends where the next one begins.
BINS = {"under a third": 0.0, "a third to two thirds": 1 / 3, "over two thirds": 2 / 3}


def class_overlap(labels: np.ndarray, exemplar_labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The overlap of every target with every exemplar.

    Args:
      labels: int [n, h, w] in 0..C, C = unlabelled.
      exemplar_labels: int [m, h', w'] in 0..C.
      num_classes: C.

    Returns:
      float64 [n, m] in [0, 1]; NaN for targets without a labelled pixel.
    """
    areas, exemplar_areas = (_areas(maps, num_classes) for maps in (labels, exemplar_labels))
    occurs = exemplar_areas >= reconstruction.MIN_EXEMPLAR_SHARE
    labelled = areas.sum(axis=1, keepdims=True)
    shares = np.divide(areas, labelled, out=np.full_like(areas, np.nan), where=labelled > 0)
    # Sums of shares miss 1 by rounding.
    return np.minimum(shares @ occurs.T.astype(np.float64), 1.0)


def _areas(labels, num_classes):
    """The share of each class in each map, float64 [n, C]."""
    flat = labels.reshape(len(labels), -1)
    return np.stack([(flat == c).mean(axis=1) for c in range(num_classes)], axis=1)


def draw_bins(pairs: PairList, num_classes: int, count: int, seed: int) -> dict[str, np.ndarray]:
    """Draws the pairs of each bin from all targets and exemplars of a list that come from different photos.

    Args:
      pairs: of `freeze_pairs`.
      num_classes: C.
      count: pairs per bin; fewer where the list holds no more.
      seed: of the draw.

    Returns:
      By name of the bin: int [k, 2], the pair whose target, and the pair whose exemplar is taken.
    """
    n = len(pairs.names)
    overlap = class_overlap(pairs.labels[:n], pairs.labels[n:], num_classes)
    overlap[pairs.photos[:, None] == pairs.photos[None]] = np.nan
    edges = [*BINS.values(), np.inf]
    found = {}
    for place, name in enumerate(BINS):
        candidates = np.argwhere((overlap >= edges[place]) & (overlap < edges[place + 1]))
        order = np.random.default_rng((seed, place)).permutation(len(candidates))
        found[name] = candidates[order[:count]]
    return found


def steps_of(bins: Mapping[str, np.ndarray], weights: Mapping[str, Any]) -> int:
    """How many images `by_overlap` will report to `advance`; `weights` as it takes them."""
    return sum(map(len, bins.values())) * (2 + len(weights))


def by_overlap(
    model: generation.Synthesizes,
    pairs: PairList,
    bins: Mapping[str, np.ndarray],
    num_classes: int,
    *,
    size: tuple[int, int],
    batches: Batches,
    weights: Mapping[str, LpipsParams],
    seed: int = 0,
    advance: Advance = ignore_progress,
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, np.ndarray]]]:
    """Measures the outputs of each bin against the true answers.

    Args:
      model: see `Synthesizes`.
      pairs: of `freeze_pairs`, of scenes.
      bins: of `draw_bins`.
      num_classes: C.
      size: of the renders, see `mscaflax.evaluation.truth.scenes_size`.
      batches: of all networks.
      weights: LPIPS parameters by network, of those that can see the patches (`usable_nets`).
      seed: of the model's noise and of the bootstrap.
      advance: called with the number of images finished, of `steps_of` in all.

    Returns:
      (means, values), both by name of the bin. Means: n; overlap, known_pixels and the full-reference
      metrics, as `summarize` gives them: over all pixels; `masked_`, where the class occurs in the exemplar;
      `missing_`, where it does not.
      A mean over pixels leaves out the pairs that have none; it is None where no pair has any. Empty bins
      have n = 0 alone. Values: the same metrics, float64 [k]; nothing of empty bins.
    """
    n = len(pairs.names)
    found: dict[str, dict[str, Any]] = {}
    values_of: dict[str, dict[str, np.ndarray]] = {}
    for name, chosen in bins.items():
        if not len(chosen):
            found[name] = {"n": 0}
            continue
        targets, styles = chosen.T
        references = truth.draw_truth(pairs, targets, styles, size, advance=advance)
        outputs = generation.synthesize(
            model, pairs, n + styles, layouts=targets, batches=batches, seed=seed, advance=advance
        )
        labels, exemplar_labels = pairs.labels[targets], pairs.labels[n + styles]
        known = reconstruction.known_pixels(labels, exemplar_labels, num_classes)
        missing = ~known & (labels < num_classes)
        scores = reconstruction.full_reference(
            references,
            {"outputs": outputs},
            batches=batches,
            weights=weights,
            masks={"masked": {"outputs": known}, "missing": {"outputs": missing}},
            advance=advance,
        )
        rows = scores["outputs"]
        overlap = class_overlap(labels, exemplar_labels, num_classes)
        rows |= {"overlap": np.diagonal(overlap), "known_pixels": known.mean(axis=(1, 2))}
        values_of[name] = rows
        found[name] = {"n": len(chosen)} | {
            metric: summarize(values, pairs.photos[targets], seed) for metric, values in rows.items()
        }
    return found, values_of
