"""Patch pairs: two squares of equal side cut from one photo without overlap.

No dataset has pairs of different scenes in one style, so training pairs come from one photo (the method is
self-supervised, from patches; the sampling law below is this project's):

* the side is a whole number of pixels, uniform in [lo, hi] * min(short side, long side / 2);
* given the side, the ordered pair (target, exemplar) is uniform over *all* placements that do not overlap.

The second point is exact. The placements of a photo are numbered by a bijection (`placement`), so one uniform
integer below their count (`count_placements`) draws one of them: no rejection loop, no preference for pairs
that lie side by side over pairs that lie one above the other.

Numbering. Along an axis of extent e a square of side s has n = e - s + 1 positions, and two squares are
*apart* along it if their positions differ by at least s, *close* otherwise; they overlap iff they are close
along both axes. So the placements are the disjoint union of

    apart in x, anything in y      apart(n_x) * n_y^2
    close in x, apart in y         close(n_x) * apart(n_y)

with apart(n) = k (k + 1), k = max(0, n - s), and close(n) = n^2 - apart(n); each part is a product of two
sets that are simple to number.

Everything is Python integers: exact at any photo size, and independent of any library's random streams but
for the raw words of Philox4x64-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011), a counter-based generator that needs no state.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mscaflax.errors import UserError

WORDS_PER_PAIR = 3
_WORD = 1 << 64


@dataclass(frozen=True)
class PatchPair:
    """Two equal squares of one photo, in pixels; each corner is (top, left)."""

    side: int
    target: tuple[int, int]
    exemplar: tuple[int, int]


def check_side_range(side_range: Sequence[float]) -> tuple[float, float]:
    """Returns `side_range` as a pair.

    Raises:
      UserError: it is not two numbers with 0 < lo <= hi <= 1.
    """
    bounds = tuple(side_range) if isinstance(side_range, Sequence) else ()
    if len(bounds) != 2 or not all(isinstance(bound, (int, float)) for bound in bounds):
        raise UserError(f"side_range is {side_range!r}: give two numbers with 0 < low <= high <= 1")
    low, high = bounds
    if not 0 < low <= high <= 1:
        raise UserError(f"side_range is {bounds}: give two numbers with 0 < low <= high <= 1")
    return low, high


def side_bounds(height: int, width: int, side_range: tuple[float, float] = (0.5, 1.0)) -> tuple[int, int]:
    """Smallest and largest side, in pixels, of a patch pair of a photo of `height` x `width` pixels.

    The bounds are `side_range` times min(short side, long side / 2), rounded inwards. Where no whole number
    lies between (a narrow range, a tiny photo), both are the upper bound rounded down.

    Raises:
      UserError: the photo has no room for two squares, or as `check_side_range`.
    """
    low, high = check_side_range(side_range)
    largest = min(height, width, max(height, width) / 2)
    upper = math.floor(high * largest)
    if upper < 1:
        raise UserError(
            f"a photo of {width}x{height} pixels is too small for two patches: leave it out of the dataset"
        )
    return min(math.ceil(low * largest), upper), upper


def count_placements(height: int, width: int, side: int) -> int:
    """Number of ordered pairs of squares of `side` pixels that lie in the photo and do not overlap."""
    rows, columns = height - side + 1, width - side + 1
    if rows < 1 or columns < 1:
        return 0
    across = _count_apart(columns, side) * rows**2
    return across + (columns**2 - _count_apart(columns, side)) * _count_apart(rows, side)


def placement(height: int, width: int, side: int, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The placement of number `rank`: ((top, left) of the target, (top, left) of the exemplar).

    A bijection from 0 .. count_placements(height, width, side) - 1 to the placements.

    Raises:
      ValueError: `rank` is outside that range.
    """
    if not 0 <= rank < count_placements(height, width, side):
        raise ValueError(f"rank {rank} is outside 0..{count_placements(height, width, side) - 1}")
    rows, columns = height - side + 1, width - side + 1
    across = _count_apart(columns, side) * rows**2
    if rank < across:
        rank_x, rank_y = divmod(rank, rows**2)
        lefts, tops = _apart(columns, side, rank_x), divmod(rank_y, rows)
    else:
        rank_x, rank_y = divmod(rank - across, _count_apart(rows, side))
        lefts, tops = _close(columns, side, rank_x), _apart(rows, side, rank_y)
    return (tops[0], lefts[0]), (tops[1], lefts[1])


def sample_pair(
    height: int, width: int, words: tuple[int, int, int], side_range: tuple[float, float] = (0.5, 1.0)
) -> PatchPair:
    """Draws a pair from three independent uniform 64-bit words (see `random_words`); a pure function.

    Multiply-and-shift turns the words into bounded integers; the deviation from uniform is below
    count / 2^128 for the placement and side / 2^64 for the side.

    Raises:
      UserError: as `side_bounds`.
    """
    low, high = side_bounds(height, width, side_range)
    side = low + (words[0] * (high - low + 1) >> 64)
    rank = (words[1] * _WORD + words[2]) * count_placements(height, width, side) >> 128
    target, exemplar = placement(height, width, side, rank)
    return PatchPair(side, target, exemplar)


def random_words(seed: int, stream: int, position: int, count: int = WORDS_PER_PAIR) -> tuple[int, ...]:
    """`count` uniform 64-bit words: a pure function of three numbers, each in 0 .. 2^63 - 1."""
    key = np.array([seed, position], np.uint64)
    counter = np.array([0, 0, 0, stream], np.uint64)
    return tuple(np.random.Philox(key=key, counter=counter).random_raw(count).tolist())


def _count_apart(positions: int, side: int) -> int:
    k = max(0, positions - side)
    return k * (k + 1)


def _apart(positions: int, side: int, rank: int) -> tuple[int, int]:
    # Taking side - 1 from the larger position maps the pairs that are apart onto ordered pairs of
    # different numbers in 0..k.
    k = positions - side
    first, second = divmod(rank, k)
    second += second >= first
    return (first, second + side - 1) if first < second else (first + side - 1, second)


def _close(positions: int, side: int, rank: int) -> tuple[int, int]:
    if rank < positions:
        return rank, rank
    # There are n - d pairs at distance d. Forward pairs at distance d and backward pairs at distance s - d
    # together are 2n - s, whatever d in 1..s-1: rows of equal length, numbered by one divmod.
    side = min(side, positions)
    row, column = divmod(rank - positions, 2 * positions - side)
    forward = row + 1
    if column < positions - forward:
        return column, column + forward
    column -= positions - forward
    return column + side - forward, column
