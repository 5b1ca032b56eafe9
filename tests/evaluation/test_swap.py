import numpy as np
import pytest

from mscaflax.evaluation.swap import (
    ClassColours,
    class_colours,
    draw_triples,
    exemplar_distance,
    most_different,
    score_swaps,
)

CLASSES = 3


def flat(colours, labels):
    """Images [n, h, w, 3] uint8 that paint class k of image i in colours[i][k]."""
    colours = np.concatenate([colours, np.zeros((len(colours), 1, 3))], 1)
    return np.stack([c[x] for c, x in zip(colours, labels, strict=True)]).astype(np.uint8)


@pytest.fixture(scope="module")
def scene():
    """n = 40 triples with random maps of three classes, unlabelled pixels and random colours."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES + 1, (3, 40, 6, 8)).repeat(2, 2).repeat(2, 3)
    colours = rng.integers(0, 256, (2, 40, CLASSES, 3))
    return labels, colours, rng


def scores(scene, y_a, y_b):
    (c, la, lb), (a, b), _ = scene
    of = lambda images, labels: class_colours(images, labels, CLASSES)  # noqa: E731
    return score_swaps(of(y_a, c), of(y_b, c), of(flat(a, la), la), of(flat(b, lb), lb))


def test_statistics_match_numpy_per_class():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (3, 9, 7, 3)).astype(np.uint8)
    labels = rng.integers(0, CLASSES + 1, (3, 9, 7))
    labels[2][labels[2] == 1] = 0
    found = class_colours(images, labels, CLASSES)
    for i in range(3):
        for k in range(CLASSES):
            inside = images[i][labels[i] == k].astype(np.float64)
            assert found.area[i, k] == pytest.approx(len(inside) / 63)
            if len(inside):
                expected = np.concatenate([inside.mean(0), inside.std(0)])
                np.testing.assert_allclose(found.style[i, k], expected, atol=1e-9)
    assert (found.style[2, 1] == 0).all() and found.area[2, 1] == 0


def test_a_perfect_follower_passes_everything(scene):
    (c, _, _), (a, b), _ = scene
    result = scores(scene, flat(a, c), flat(b, c))
    assert result.counted.all() and result.passed.all()


def test_following_the_wrong_exemplar_fails_everything(scene):
    (c, _, _), (a, b), _ = scene
    result = scores(scene, flat(b, c), flat(a, c))
    assert result.counted.all() and not result.passed.any()


def test_ignoring_the_exemplar_is_a_tie_and_fails(scene):
    (c, _, _), (a, _), _ = scene
    same = flat(a, c)
    result = scores(scene, same, same)
    assert (result.margin == 0).all() and not result.passed.any()


def test_answers_that_do_not_depend_on_the_exemplar_pass_half():
    rng = np.random.default_rng(2)
    n = 2000
    random = lambda: ClassColours(np.full((n, CLASSES), 0.3), rng.uniform(0, 255, (n, CLASSES, 6)))  # noqa: E731
    share = score_swaps(random(), random(), random(), random()).passed.mean()
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(n)


def test_margin_by_hand():
    # one class each, areas 0.5 and 0.25 in the layout: weights 2/3 and 1/3; class 2 is too small in b
    area = np.array([[0.5, 0.25, 0.25]])
    style = lambda *values: np.array([[[v, 0, 0, 0, 0, 0] for v in values]], np.float64)  # noqa: E731
    y_a, y_b = ClassColours(area, style(10, 20, 0)), ClassColours(area, style(40, 50, 0))
    a = ClassColours(area, style(13, 20, 99))
    b = ClassColours(np.array([[0.9, 0.091, 0.009]]), style(40, 44, 7))
    result = score_swaps(y_a, y_b, a, b)
    own = 2 / 3 * (3 + 0) + 1 / 3 * (0 + 6)
    crossed = 2 / 3 * (30 + 27) + 1 / 3 * (24 + 30)
    assert result.margin[0] == pytest.approx(crossed - own)
    # ... but of a and b alone: mean areas 0.7 and 0.1705
    assert exemplar_distance(a, b)[0] == pytest.approx((0.7 * 27 + 0.1705 * 24) / 0.8705)


def test_deviation_counts_as_style(scene):
    rng = np.random.default_rng(3)
    labels = np.zeros((1, 20, 20), int)
    images = [np.clip(rng.normal(128, s, (1, 20, 20, 3)), 0, 255).astype(np.uint8) for s in (5, 40, 5, 40)]
    y_a, y_b, a, b = (class_colours(x, labels, CLASSES) for x in images)
    assert score_swaps(y_a, y_b, a, b).passed.all()
    assert not score_swaps(y_b, y_a, a, b).passed.any()


def test_triples_without_a_shared_class_are_not_counted(scene):
    (c, la, lb), colours, rng = scene
    c = c.copy()
    c[:10] = 0
    la, lb = la.copy(), lb.copy()
    la[:10][la[:10] == 0] = 1
    lb[10:12] = CLASSES
    result = scores(((c, la, lb), colours, rng), flat(colours[0], c), flat(colours[1], c))
    np.testing.assert_array_equal(result.counted, np.arange(40) >= 12)
    np.testing.assert_array_equal(result.passed, result.counted)
    assert np.isnan(result.margin[:12]).all() and not np.isnan(result.margin[12:]).any()
    a, b = (class_colours(flat(colours[i], label), label, CLASSES) for i, label in enumerate((la, lb)))
    distance = exemplar_distance(a, b)
    assert np.isnan(distance[10:12]).all() and not np.isnan(distance[:10]).any()


def test_the_half_that_differs_most():
    among = np.array([True, True, False, True, True, True])
    distance = np.array([5.0, 1, np.nan, 9, 5, 2])
    np.testing.assert_array_equal(most_different(distance, among), [1, 0, 0, 1, 1, 0])
    among[0] = False
    np.testing.assert_array_equal(most_different(distance, among), [0, 0, 0, 1, 1, 0])
    assert not most_different(distance, among & False).any()


def test_triples_come_from_three_photos_and_are_frozen():
    photos = np.array([0, 1, 2, 3, 4, 0, 1])
    triples = draw_triples(photos, 300, seed=5)
    assert all(np.unique(photos[t]).size == 3 for t in triples)
    np.testing.assert_array_equal(triples[:, 0], np.arange(300) % 7)
    assert len(np.unique(triples[:, 1:], axis=0)) > 30
    np.testing.assert_array_equal(draw_triples(photos, 20, seed=5), triples[:20])
    # Literally, since results are compared triple by triple.
    assert triples[:5].tolist() == [[0, 4, 6], [1, 0, 4], [2, 5, 1], [3, 6, 4], [4, 5, 2]]
    assert (draw_triples(photos, 20, seed=6) != triples[:20]).any()
    assert draw_triples(np.array([0, 1, 1, 0]), 2, seed=0).shape == (0, 3)


def test_wrong_input():
    with pytest.raises(ValueError, match="0..3"):
        class_colours(np.zeros((1, 2, 2, 3)), np.full((1, 2, 2), 4), CLASSES)
    with pytest.raises(ValueError, match="must be"):
        class_colours(np.zeros((1, 2, 2, 3)), np.zeros((1, 2, 3), int), CLASSES)
