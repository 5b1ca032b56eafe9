"""Retrieval of exemplars: scenes whose label maps are like the target's, but not the most alike one.

The query is the target's label map alone: its photo would leak the style. An exemplar is drawn from the
nearest 20% of the candidates by rank, not from the top, so that exemplar and target differ semantically
(Zheng et al., ECCV 2020, footnote 2). Descriptor and distance are this project's; a label map of any size has

    a, [C]:      the share of its pixels that each class covers;
    l, [4·4·C]:  the same in each cell of a 4x4 grid;
    v = [√(1-w) a/‖a‖, √w l/‖l‖] with w = 0.5, so that the cosine distance of two maps is
    1 - (1-w) cos(a, a') - w cos(l, l').

Unlabelled pixels count in the denominators, so C + 1 shares add up to 1, but are not matched on. A map
without a labelled pixel has v = 0 and the distance 1 from every map.

v is scaled to a length of 4000 and rounded to whole numbers, which moves a distance by about 1e-4. The
product of two such vectors, and every partial sum of it, is a whole number of at most 2^24, which float32
holds exactly: distances and ties are the same for any order of the candidates, size of the blocks, and BLAS.

Shapes: q targets, m candidates, C classes, d = 17 C.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mscaflax.errors import UserError

GRID = 4
LAYOUT_WEIGHT = 0.5

# With at most 17 * 255 entries, rounding adds less than 33 to the length: it stays below 2^12.
_LENGTH = 4000
# Distances held at a time.
_BLOCK = 1 << 22


class Nearest(NamedTuple):
    """Candidates and their distances from a target.

    Attributes:
      indices: int64 [..., k], the candidates.
      distances: float32 [..., k] in [0, 1], their cosine distances.
    """

    indices: np.ndarray
    distances: np.ndarray


def _unit(x: np.ndarray) -> np.ndarray:
    return x / (np.sqrt((x**2).sum()) or 1)


def _descriptor(label: np.ndarray, num_classes: int) -> np.ndarray:
    """float32 [d] of one valid label map [h, w]."""
    if min(label.shape) < GRID:  # no cell may be empty
        label = label.repeat(GRID, 0).repeat(GRID, 1)
    # Position i of s lies in cell ⌊i · GRID / s⌋.
    rows, columns = ([-(-size * cell // GRID) for cell in range(GRID + 1)] for size in label.shape)
    cells = [
        label[top:bottom, left:right]
        for top, bottom in itertools.pairwise(rows)
        for left, right in itertools.pairwise(columns)
    ]
    count = np.stack([np.bincount(cell.ravel(), minlength=num_classes + 1) for cell in cells])
    areas = count.sum(0)[:-1] / label.size
    layout = count[:, :-1] / count.sum(1, keepdims=True)
    parts = np.sqrt(1 - LAYOUT_WEIGHT) * _unit(areas), np.sqrt(LAYOUT_WEIGHT) * _unit(layout).ravel()
    return np.rint(_LENGTH * np.concatenate(parts)).astype(np.float32)


def descriptors(label_maps: Iterable[np.ndarray], num_classes: int) -> np.ndarray:
    """Describes label maps by the module's definition.

    Args:
      label_maps: n arrays of integers [h, w] in 0..C, C = unlabelled, each of any size of at least one pixel.
        An iterator will do: one map is held at a time.
      num_classes: C, in 1..255.

    Returns:
      float32 [n, 17 C], whole numbers; a row has a length of about 4000, or is 0 if its map has no labelled
      pixel.

    Raises:
      ValueError: a map is not [h, w], is empty, or holds values other than integers in 0..C; or C is out of
        range.
    """
    if not 1 <= num_classes <= 255:
        raise ValueError(f"num_classes must lie in 1..255, got {num_classes}")
    found = []
    for index, label in enumerate(label_maps):
        label = np.asarray(label)
        if label.ndim != 2 or not label.size or label.dtype.kind not in "iu":
            raise ValueError(f"label map {index} must be integers [h, w], got {label.dtype} {label.shape}")
        if not 0 <= label.min() <= label.max() <= num_classes:
            raise ValueError(
                f"the ids {label.min()}..{label.max()} of label map {index} do not lie in 0..{num_classes}"
            )
        found.append(_descriptor(label, num_classes))
    return np.stack(found) if found else np.zeros((0, (GRID**2 + 1) * num_classes), np.float32)


def nearest_count(candidates: int) -> int:
    """How many of so many candidates the nearest 20% are: rounded down, but at least one."""
    return max(1, candidates // 5)


def rank(
    queries: np.ndarray,
    candidates: np.ndarray,
    exclude: Sequence[int] | np.ndarray | None = None,
    names: Sequence[str] | None = None,
) -> Iterator[Nearest]:
    """The nearest 20% of the candidates for every target.

    Args:
      queries: float32 [q, d], of `descriptors`.
      candidates: float32 [m, d], of `descriptors`.
      exclude: int [q] or [q, e], for each target the candidates that are of the same image, each once, the
        rest of the row -1; default: none is.
      names: of the m candidates: the order of equal distances, so that the candidates' own order does not
        matter. Default: the lower index first.

    Returns:
      An iterator over q lists, nearest first: the first `nearest_count(m')` of the m' candidates that are not
      excluded. Memory is needed for the descriptors and for one block of distances.

    Raises:
      UserError: a target has no candidate.
      ValueError: shapes do not fit, or an entry of `exclude` lies outside -1..m-1.
    """
    queries, candidates = np.asarray(queries, np.float32), np.asarray(candidates, np.float32)
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise ValueError(f"descriptors must be [q, d] and [m, d], got {queries.shape}, {candidates.shape}")
    q, m = len(queries), len(candidates)
    excluded = np.full(q, -1) if exclude is None else np.asarray(exclude, np.int64)
    if excluded.shape[:1] != (q,) or excluded.ndim > 2 or ((excluded < -1) | (excluded >= m)).any():
        raise ValueError(f"exclude must be [{q}] or [{q}, e] of -1..{m - 1}, got shape {excluded.shape}")
    excluded = excluded[:, None] if excluded.ndim == 1 else excluded
    if names is not None and len(names) != m:
        raise ValueError(f"there are {len(names)} names for {m} candidates")
    if (m - (excluded >= 0).sum(axis=1) < 1).any():
        raise UserError(
            "a target has no candidate but itself: take candidates from another or a larger split"
        )
    order = np.array(sorted(range(m), key=names.__getitem__) if names is not None else range(m), np.int64)
    return _rank(queries, candidates[order], excluded, order)


def _rank(
    queries: np.ndarray, candidates: np.ndarray, excluded: np.ndarray, order: np.ndarray
) -> Iterator[Nearest]:
    """`rank` of valid input; row i of `candidates` is candidate `order[i]`."""
    position = np.argsort(order)
    # Squares, products of two squares and square roots of squares are exact too: a map's distance from
    # itself is 0, and none is negative.
    squares = np.einsum("md,md->m", candidates, candidates).astype(np.float64)
    size = max(1, _BLOCK // max(1, len(candidates)))
    for start in range(0, len(queries), size):
        block = queries[start : start + size]
        lengths = np.sqrt(np.einsum("qd,qd->q", block, block).astype(np.float64)[:, None] * squares)
        distances = (1 - block @ candidates.T / np.maximum(lengths, 1)).astype(np.float32)
        for row, itself in zip(distances, excluded[start : start + size], strict=True):
            itself = itself[itself >= 0]
            row[position[itself]] = np.inf
            first = np.argsort(row, kind="stable")[: nearest_count(len(row) - len(itself))]
            yield Nearest(order[first], row[first])


def check_count(count: int, available: int) -> None:
    """Raises UserError if `count` exemplars cannot be drawn from the nearest 20%, which are `available`."""
    if count > available:
        raise UserError(
            f"{count} exemplars per target were asked for, but the nearest 20% of the candidates are only "
            f"{available}: ask for fewer, or take a larger split"
        )


def draw_exemplars(
    nearest: Iterable[Nearest], targets: Sequence[str], count: int = 1, seed: int = 0
) -> Nearest:
    """Draws exemplars, uniformly and without repetition, from each target's nearest 20%.

    Args:
      nearest: q lists, of `rank`.
      targets: the names of the q targets. A draw depends on the seed, the target's name and its list alone,
        not on the other targets.
      count: exemplars per target, at least 1.
      seed: at least 0. The same call gives the same exemplars, and a larger `count` only appends.

    Returns:
      The exemplars, arrays [q, count] in the order of the draw.

    Raises:
      UserError: `count` is larger than a list.
      ValueError: `count` or `seed` is out of range, or there are not as many lists as targets.
    """
    if count < 1 or seed < 0:
        raise ValueError(f"count must be at least 1 and seed at least 0, got {count} and {seed}")
    indices = np.zeros((len(targets), count), np.int64)
    distances = np.zeros((len(targets), count), np.float32)
    for row, (target, found) in enumerate(zip(targets, nearest, strict=True)):
        check_count(count, len(found.indices))
        digest = hashlib.sha256(target.encode()).digest()
        rng = np.random.default_rng([seed, int.from_bytes(digest, "little")])
        drawn = rng.permutation(len(found.indices))[:count]
        indices[row], distances[row] = found.indices[drawn], found.distances[drawn]
    return Nearest(indices, distances)
