"""The pair sampler: exact numbering of placements, and the law of the pairs it draws."""

import math
import random

import numpy as np
import pytest

from mscaflax.data.pairs import (
    PatchPair,
    count_placements,
    placement,
    random_words,
    sample_pair,
    side_bounds,
)
from mscaflax.errors import UserError


def brute_force_placements(height, width, side):
    corners = [(top, left) for top in range(height - side + 1) for left in range(width - side + 1)]
    return {(p, q) for p in corners for q in corners if abs(p[0] - q[0]) >= side or abs(p[1] - q[1]) >= side}


def test_numbering_is_a_bijection_onto_all_placements():
    for height in range(1, 8):
        for width in range(1, 8):
            for side in range(1, 8):
                expected = brute_force_placements(height, width, side)
                count = count_placements(height, width, side)
                numbered = [placement(height, width, side, rank) for rank in range(count)]
                assert len(numbered) == len(set(numbered)) == len(expected), (height, width, side)
                assert set(numbered) == expected, (height, width, side)


def test_pairs_lie_inside_without_overlap_for_hundreds_of_sizes():
    rng = random.Random(0)
    for position in range(600):
        height, width = (int(math.exp(rng.uniform(math.log(4), math.log(4000)))) for _ in range(2))
        low, high = sorted((rng.uniform(0.5, 1), rng.uniform(0.5, 1))) if position % 2 else (0.5, 1.0)
        pair = sample_pair(height, width, random_words(7, 0, position), (low, high))
        for top, left in (pair.target, pair.exemplar):
            assert 0 <= top <= height - pair.side and 0 <= left <= width - pair.side
        distance = max(abs(pair.target[axis] - pair.exemplar[axis]) for axis in (0, 1))
        assert distance >= pair.side
        largest = min(height, width, max(height, width) / 2)
        assert low * largest - 1 < pair.side <= high * largest
        if position % 2 == 0:
            assert pair.side >= 0.5 * largest


@pytest.mark.parametrize(("height", "width"), [(5, 9), (9, 9), (12, 5)])
def test_placements_and_sides_are_uniform(height, width):
    low, high = side_bounds(height, width, (0.6, 1.0))
    assert low < high
    draws = 12000
    pairs = [sample_pair(height, width, random_words(3, 0, i), (0.6, 1.0)) for i in range(draws)]
    sides = np.bincount([pair.side for pair in pairs], minlength=high + 1)[low:]
    assert_uniform(sides)
    for side in range(low, high + 1):
        drawn = [(pair.target, pair.exemplar) for pair in pairs if pair.side == side]
        count = {cell: 0 for cell in brute_force_placements(height, width, side)}
        for cell in drawn:
            count[cell] += 1
        assert_uniform(np.array(list(count.values())))


def assert_uniform(counts):
    """Pearson's chi-square within five standard deviations of its mean, on both sides."""
    expected = counts.sum() / counts.size
    statistic = np.sum((counts - expected) ** 2) / expected
    freedom = counts.size - 1
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * max(freedom, 2)), (statistic, freedom)


def test_pairs_separate_along_both_axes_of_a_square_photo():
    pairs = [sample_pair(200, 200, random_words(0, 0, i)) for i in range(400)]
    beside = sum(abs(p.target[1] - p.exemplar[1]) >= p.side for p in pairs)
    above = sum(abs(p.target[0] - p.exemplar[0]) >= p.side for p in pairs)
    assert beside > 120 and above > 120
    order = sum(p.target > p.exemplar for p in pairs)
    assert 140 < order < 260


def test_words_depend_on_seed_stream_and_position_alone():
    words = {(s, t, i): random_words(s, t, i) for s in (0, 1, 2**62) for t in (0, 1) for i in range(50)}
    assert len(set(words.values())) == len(words)
    assert random_words(1, 1, 7) == words[1, 1, 7]
    assert all(0 <= word < 2**64 for triple in words.values() for word in triple)


def philox(counter, key):
    """Philox4x64-10 as Salmon et al. (SC 2011, section 3.3) define it."""
    (a, b, c, d), (k0, k1) = counter, key
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = right >> 64 ^ b ^ k0, right % 2**64, left >> 64 ^ d ^ k1, left % 2**64
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % 2**64, (k1 + 0xBB67AE8584CAA73B) % 2**64
    return a, b, c, d


def test_words_are_those_of_philox():
    # The known answers of the authors' Random123 (tests/kat_vectors).
    assert philox((0,) * 4, (0,) * 2) == (
        0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B,
    )  # fmt: skip
    assert philox((2**64 - 1,) * 4, (2**64 - 1,) * 2) == (
        0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0,
    )  # fmt: skip
    for seed, stream, position in [(0, 0, 0), (5, 1, 2**40), (2**63 - 1, 0, 7)]:
        assert random_words(seed, stream, position, 4) == philox((1, 0, 0, stream), (seed, position))


def test_pairs_once_drawn_stay_as_they_are():
    """Frozen evaluation pairs and resumed runs depend on it."""
    assert random_words(5, 1, 2**40) == (0x268173D4E0D02186, 0x858052B1D8231B3D, 0xE148FC6724A44F52)
    drawn = [sample_pair(288, 384, random_words(0, 1, position)) for position in range(3)]
    assert drawn == [
        PatchPair(129, (116, 210), (152, 58)),
        PatchPair(109, (34, 32), (113, 189)),
        PatchPair(154, (120, 211), (0, 5)),
    ]
    drawn = [sample_pair(100, 80, random_words(7, 0, position), (0.25, 0.75)) for position in range(2)]
    assert drawn == [PatchPair(34, (20, 38), (66, 39)), PatchPair(35, (48, 35), (10, 41))]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 0), (0, 5)])
def test_tiny_photo_is_refused(height, width):
    with pytest.raises(UserError, match=f"{width}x{height}.*too small"):
        side_bounds(height, width)


def test_smallest_photos_work():
    pair = sample_pair(1, 2, random_words(0, 0, 0))
    assert pair.side == 1 and {pair.target, pair.exemplar} == {(0, 0), (0, 1)}
    assert side_bounds(3, 3) == (1, 1)
    assert side_bounds(288, 384) == (96, 192)
    assert side_bounds(288, 385, (0.75, 0.75)) == (144, 144)


@pytest.mark.parametrize(
    "side_range", [(0, 1), (0.8, 0.5), (0.5, 1.1), (0.5,), (0.5, "1"), 0.5, "01", None, (math.nan, 1)]
)
def test_bad_side_range_is_refused(side_range):
    with pytest.raises(UserError, match="side_range is .*: give two numbers with 0 < low <= high <= 1"):
        side_bounds(100, 100, side_range)


def test_rank_outside_is_refused():
    with pytest.raises(ValueError, match="outside"):
        placement(4, 8, 4, count_placements(4, 8, 4))
