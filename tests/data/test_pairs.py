"""The pair sampler: exact numbering of placements, and the law of the pairs it draws."""

import math
import random

import numpy as np
import pytest

from mscaflax.data.pairs import count_placements, placement, random_words, sample_pair, side_bounds
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
    # Philox4x64-10 with a zero key: counter 1 of the authors' own generator, as numpy documents it.
    assert random_words(0, 0, 0, 4) == tuple(np.random.Philox(key=0, counter=0).random_raw(4).tolist())


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


@pytest.mark.parametrize("side_range", [(0, 1), (0.8, 0.5), (0.5, 1.1)])
def test_bad_side_range_is_refused(side_range):
    with pytest.raises(UserError, match="side_range"):
        side_bounds(100, 100, side_range)


def test_rank_outside_is_refused():
    with pytest.raises(ValueError, match="outside"):
        placement(4, 8, 4, count_placements(4, 8, 4))
