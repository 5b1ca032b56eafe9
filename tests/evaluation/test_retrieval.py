import math

import numpy as np
import pytest

from mscaflax.errors import UserError
from mscaflax.evaluation import retrieval
from mscaflax.evaluation.retrieval import check_count, descriptors, draw_exemplars, nearest_count, rank

CLASSES = 5


def make_maps(count, seed=0):
    """Label maps of blocks of classes (unlabelled included), of many sizes."""
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(count):
        blocks = rng.choice(CLASSES + 1, rng.integers(1, 5, 2), p=rng.dirichlet(np.full(CLASSES + 1, 0.7)))
        maps.append(blocks.repeat(rng.integers(4, 9), 0).repeat(rng.integers(4, 9), 1).astype(np.uint8))
    return maps


def reference_vectors(label):
    """Areas and layout, each of length 1, by loops over pixels in float64."""
    h, w = label.shape
    areas, layout = np.zeros(CLASSES), np.zeros((4, 4, CLASSES))
    cell_size = np.zeros((4, 4))
    for y in range(h):
        for x in range(w):
            cell_size[4 * y // h, 4 * x // w] += 1
    for y in range(h):
        for x in range(w):
            if label[y, x] < CLASSES:
                areas[label[y, x]] += 1 / (h * w)
                cell = 4 * y // h, 4 * x // w
                layout[cell][label[y, x]] += 1 / cell_size[cell]
    return areas / (np.linalg.norm(areas) or 1), layout.ravel() / (np.linalg.norm(layout) or 1)


def reference_distance(one, other):
    return 1 - 0.5 * math.fsum(one[0] * other[0]) - 0.5 * math.fsum(one[1] * other[1])


@pytest.fixture(scope="module")
def scene():
    """20 targets, 60 candidates, the last of which are the first again; their descriptors."""
    targets, candidates = make_maps(20, 1), make_maps(50, 2)
    candidates += candidates[:10]
    return targets, candidates, descriptors(targets, CLASSES), descriptors(candidates, CLASSES)


def names_of(found, names):
    return [[names[i] for i in f.indices] for f in found]


def test_descriptors_match_loops_over_pixels(scene):
    targets, _, found, _ = scene
    assert found.dtype == np.float32 and found.shape == (20, 17 * CLASSES)
    for label, row in zip(targets, found, strict=True):
        expected = np.sqrt(0.5) * np.concatenate(reference_vectors(label))
        np.testing.assert_allclose(row / 4000, expected, atol=0.5001 / 4000)
        assert abs(np.linalg.norm(row) - 4000) < 10 or (label == CLASSES).all()


def test_distances_and_lists_match_a_slow_reference(scene):
    targets, candidates, queries, pool = scene
    vectors = [reference_vectors(c) for c in candidates]
    for label, found in zip(targets, rank(queries, pool), strict=True):
        expected = np.array([reference_distance(reference_vectors(label), v) for v in vectors])
        assert found.distances.dtype == np.float32 and found.indices.shape == found.distances.shape == (12,)
        np.testing.assert_allclose(found.distances, expected[found.indices], atol=1e-3)
        # The true nearest 20%, but for candidates whose distances differ by less than the rounding.
        assert (expected[found.indices] <= np.sort(expected)[11] + 2e-3).all()
        assert (np.diff(found.distances) >= 0).all() and len(set(found.indices.tolist())) == 12
        others = np.setdiff1d(np.arange(60), found.indices)
        assert (expected[others] >= np.sort(expected)[12] - 2e-3).all()


def test_lists_equal_exact_arithmetic(scene):
    _, _, queries, pool = scene
    exact = pool.astype(np.int64)
    for query, found in zip(queries.astype(np.int64), rank(queries, pool), strict=True):
        length = np.sqrt((query @ query * (exact * exact).sum(1)).astype(np.float64))
        distance = np.float32(1 - exact @ query / np.maximum(length, 1))
        expected = sorted(range(60), key=lambda i: (distance[i], i))[:12]
        assert found.indices.tolist() == expected
        np.testing.assert_array_equal(found.distances, distance[expected])


def test_products_are_exact_for_the_longest_vectors():
    # Every class in every cell makes most entries, hence most rounding.
    label = np.random.default_rng(0).integers(0, 255, (64, 64))
    (row,) = descriptors([label], 255)
    assert (row == np.rint(row)).all() and (row >= 0).all()
    assert int((row.astype(np.int64) ** 2).sum()) <= 2**24


def test_the_candidates_order_and_the_blocks_change_nothing(scene, monkeypatch):
    _, _, queries, pool = scene
    names = [f"photo{i:02d}" for i in np.random.default_rng(3).permutation(60)]
    exclude = np.arange(20) - 1
    found = list(rank(queries, pool, exclude, names))
    order = np.random.default_rng(4).permutation(60)
    place = np.argsort(order)
    moved = np.where(exclude < 0, -1, place[exclude])
    monkeypatch.setattr(retrieval, "_BLOCK", 60 * 3)
    shuffled = [names[i] for i in order]
    again = list(rank(queries, pool[order], moved, shuffled))
    assert names_of(again, shuffled) == names_of(found, names)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.distances, other.distances)

    targets = [f"target{i}" for i in range(20)]
    drawn = draw_exemplars(found, targets, 3), draw_exemplars(again, targets, 3)
    assert [names[i] for i in drawn[0].indices.ravel()] == [shuffled[i] for i in drawn[1].indices.ravel()]


def test_several_candidates_of_a_target_are_left_out(scene):
    _, _, queries, pool = scene
    exclude = np.array([[i, 59 - i, -1] for i in range(20)])
    for row, found in zip(exclude, rank(queries, pool, exclude), strict=True):
        left = np.setdiff1d(np.arange(60), row)
        (expected,) = rank(queries[[row[0]]], pool[left])
        np.testing.assert_array_equal(found.indices, left[expected.indices])
    with pytest.raises(UserError, match="no candidate but itself"):
        rank(queries[:1], pool[:2], [[0, 1]])


def test_the_image_itself_is_never_returned(scene):
    maps = [*make_maps(26, 5), *make_maps(1, 5)]  # the last is the first again, but another image
    pool = descriptors(maps, CLASSES)
    lists = list(rank(pool, pool, np.arange(27)))
    assert all(i not in found.indices and len(found.indices) == 5 for i, found in enumerate(lists))
    assert lists[0].indices[0] == 26 and lists[0].distances[0] == 0
    assert all(np.isfinite(found.distances).all() for found in lists)
    for seed in range(20):
        drawn = draw_exemplars(lists, [str(i) for i in range(27)], 5, seed)
        assert (drawn.indices != np.arange(27)[:, None]).all()


def test_a_map_is_at_distance_zero_from_itself_at_any_size():
    maps = make_maps(30, 6)
    for label, found in zip(maps, rank(descriptors(maps, CLASSES), descriptors(maps, CLASSES)), strict=True):
        assert found.distances[0] == 0 or (label == CLASSES).all()
    # Maps whose sides are multiples of four keep their descriptor when scaled; tiny ones are spread.
    label = np.arange(16).reshape(4, 4) % (CLASSES + 1)
    scaled = [label, label.repeat(3, 0).repeat(5, 1), np.full((1, 1), 2), np.full((8, 9), 2)]
    found = descriptors(scaled, CLASSES)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[2], found[3])


def test_layout_matters_and_unlabelled_pixels_are_not_matched():
    half = np.array([[0] * 8, [1] * 8]).repeat(4, 0)
    # as it is, upside down, half of it unlabelled (at the sides), another class
    sides = half.copy()
    sides[:, [0, 1, 6, 7]] = CLASSES
    empty = np.full((8, 8), CLASSES)
    maps = [half, half[::-1], sides, np.full((8, 8), 2), empty]
    distances = np.zeros((5, 5))
    pool = descriptors(maps, CLASSES)
    for i in range(5):
        for j in range(5):
            (found,) = rank(pool[i : i + 1], pool[j : j + 1])
            distances[i, j] = found.distances[0]
    # equal areas, opposite layout: half of the distance
    expected = [0, 0.5, 0.5 * (1 - np.sqrt(0.5)), 1, 1]
    np.testing.assert_allclose(distances[0], expected, atol=1e-3)
    assert (distances == distances.T).all() and (distances[4] == 1).all()


def test_draws_are_from_the_list_frozen_and_independent_of_other_targets(scene):
    _, _, queries, pool = scene
    lists = list(rank(queries, pool))
    targets = [f"target{i}" for i in range(20)]
    drawn = draw_exemplars(lists, targets, 4, seed=7)
    assert drawn.indices.shape == drawn.distances.shape == (20, 4) and drawn.distances.dtype == np.float32
    for found, indices, distances in zip(lists, *drawn, strict=True):
        distance_of = dict(zip(found.indices.tolist(), found.distances.tolist(), strict=True))
        assert [distance_of[i] for i in indices.tolist()] == distances.tolist()
        assert len(set(indices.tolist())) == 4
    np.testing.assert_array_equal(draw_exemplars(iter(lists), targets, 4, seed=7).indices, drawn.indices)
    np.testing.assert_array_equal(draw_exemplars(lists, targets, 2, seed=7).indices, drawn.indices[:, :2])
    np.testing.assert_array_equal(
        draw_exemplars(lists[5:6], targets[5:6], 4, seed=7).indices, drawn.indices[5:6]
    )
    assert (draw_exemplars(lists, targets, 4, seed=8).indices != drawn.indices).any()


def test_draws_are_uniform_over_the_list():
    found = retrieval.Nearest(np.arange(4), np.zeros(4, np.float32))
    drawn = draw_exemplars([found] * 2000, [str(i) for i in range(2000)])
    assert abs(np.bincount(drawn.indices[:, 0], minlength=4) - 500).max() < 4 * np.sqrt(2000 * 3 / 16)


def test_the_nearest_fifth():
    assert [nearest_count(m) for m in (1, 4, 5, 9, 10, 5000)] == [1, 1, 1, 1, 2, 1000]
    pool = descriptors(make_maps(10), CLASSES)
    # without itself nine are left
    assert [len(f.indices) for f in rank(pool[:2], pool, [0, -1])] == [1, 2]


@pytest.mark.parametrize("bad", [CLASSES + 1, -1])
def test_ids_outside_of_the_classes_raise(bad):
    label = np.zeros((6, 7), int)
    label[2, 3] = bad
    with pytest.raises(ValueError, match=r"ids .* of label map 1 do not lie in 0\.\.5"):
        descriptors([np.zeros((4, 4), int), label], CLASSES)


def test_wrong_input(scene):
    _, _, queries, pool = scene
    for label in (np.zeros((4, 4)), np.zeros((2, 4, 4), int), np.zeros((0, 4), int)):
        with pytest.raises(ValueError, match="must be integers"):
            descriptors([label], CLASSES)
    with pytest.raises(ValueError, match=r"1\.\.255"):
        descriptors([], 256)
    assert descriptors([], CLASSES).shape == (0, 17 * CLASSES)
    assert list(rank(queries[:0], pool)) == []
    with pytest.raises(ValueError, match="descriptors must be"):
        rank(queries, pool[:, 1:])
    for exclude in ([0], [60] * 20, [-2] * 20):
        with pytest.raises(ValueError, match="exclude must be"):
            rank(queries, pool, exclude)
    with pytest.raises(ValueError, match="59 names for 60"):
        rank(queries, pool, names=["x"] * 59)
    with pytest.raises(UserError, match="no candidate but itself"):
        rank(queries[:2], queries[:1], [-1, 0])
    with pytest.raises(UserError, match="no candidate"):
        rank(queries, pool[:0])
    with pytest.raises(UserError, match="13 exemplars .* only 12"):
        draw_exemplars(rank(queries, pool), [str(i) for i in range(20)], 13)
    with pytest.raises(UserError, match="only 1"):
        check_count(2, 1)
    for count, seed in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match="count must be"):
            draw_exemplars([], [], count, seed)
