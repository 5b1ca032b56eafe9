"""The seam: against dense algebra and closed forms, and what it promises of borders, classes and offsets."""

import numpy as np
import pytest

from mscaflax.apps import seamless
from mscaflax.apps.seamless import composite, expected, membrane

RNG = np.random.default_rng(0)


def box(size, top, left, h, w):
    kept = np.zeros(size, bool)
    kept[top : top + h, left : left + w] = True
    return kept


def dense_membrane(values, kept, label, reach):
    """The definition, pixel by pixel, as one dense least-squares problem."""
    h, w = kept.shape
    means = np.empty(values.shape)
    for y in range(h):
        for x in range(w):
            rows, columns = np.nonzero(kept & (label == label[y, x]))
            if len(rows) == 0:
                means[y, x] = values[kept].mean(axis=0)
            else:
                weights = np.exp(-8 * abs(rows - y) / reach) + 1e-6
                means[y, x] = weights @ values[rows, columns] / weights.sum()
    u = values - means
    rows, right = [], []

    def term(weights, goal):
        row = np.zeros(h * w)
        for (y, x), weight in weights.items():
            row[y * w + x] = weight
        rows.append(row)
        right.append(goal)

    for y, x in np.ndindex(h, w):
        if kept[y, x]:
            term({(y, x): 1e6}, 1e6 * u[y, x])
        else:
            term({(y, x): 1 / reach}, 0 * u[y, x])
        for other in ((y + 1, x), (y, x + 1)):
            inside = other[0] < h and other[1] < w
            if inside and label[y, x] == label[other] and not (kept[y, x] and kept[other]):
                term({(y, x): 1, other: -1}, 0 * u[y, x])
    solved, *_ = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)
    return means + solved.reshape(values.shape)


@pytest.mark.parametrize("seed", range(3))
def test_the_solver_against_dense_algebra(seed):
    rng = np.random.default_rng(seed)
    kept = rng.random((9, 11)) < (0.1, 0.5, 0.9)[seed]
    kept[0, 0] = True
    label = rng.integers(0, 2, (3, 4)).repeat(3, axis=0).repeat(3, axis=1)[:9, :11]
    values = rng.normal(size=(9, 11, 2))
    found = membrane(values, kept, label, 4.0)
    np.testing.assert_allclose(found, dense_membrane(values, kept, label, 4.0), atol=1e-7)
    # What is not kept does not count.
    values[~kept] = np.nan
    np.testing.assert_array_equal(membrane(values, kept, label, 4.0), found)


def test_a_harmonic_function():
    """With an endless reach nothing pulls: between given values lies the harmonic function x² - y² + xy."""
    y, x = np.mgrid[-8:9, -10:11].astype(float)
    values = (x * x - y * y + x * y)[..., None]
    kept = ~box(values.shape[:2], 1, 1, 15, 19)
    label = np.zeros(kept.shape, int)
    u = seamless._continued(np.where(kept[..., None], values, 0), kept, label, 1e-14)
    np.testing.assert_allclose(u, values, atol=1e-8)


def test_it_fades_with_the_distance():
    """From a straight border with u = 1: the closed form of the discrete equation."""
    reach, width = 6.0, 60
    known = np.zeros((5, width, 1))
    known[:, 0] = 1
    kept = box((5, width), 0, 0, 5, 1)
    u = seamless._continued(known, kept, np.zeros((5, width), int), 1 / reach**2)
    rate = np.arccosh(1 + 0.5 / reach**2)
    position = np.arange(width)
    # The end of the picture mirrors it: no flow at half a pixel beyond the last one.
    expected_u = np.cosh(rate * (width - 0.5 - position)) / np.cosh(rate * (width - 0.5))
    np.testing.assert_allclose(u, np.broadcast_to(expected_u[None, :, None], u.shape), atol=1e-12)
    assert u[0, 6, 0] == pytest.approx(np.exp(-1), rel=0.01)


@pytest.mark.parametrize(
    "kept", [box((20, 30), 5, 8, 9, 10), ~box((20, 30), 0, 3, 20, 6), box((20, 30), 0, 0, 1, 1)]
)
def test_a_constant_offset_is_removed_exactly(kept):
    """Whatever the label map, classes included that nothing kept has."""
    truth = RNG.integers(60, 200, (20, 30, 3), dtype=np.uint8)
    label = RNG.integers(0, 9, (20, 30))
    offset = np.array([13, -40, 0])
    found = composite(
        np.where(kept[..., None], truth, 0), (truth + offset).astype(np.uint8), kept, label, 12.0
    )
    np.testing.assert_array_equal(found, truth)


def test_kept_pixels_are_kept_and_the_others_of_the_photo_do_not_count():
    photo, synthesis = RNG.integers(0, 256, (2, 33, 41, 3), dtype=np.uint8)
    kept, label = RNG.random((33, 41)) < 0.4, RNG.integers(0, 3, (33, 41))
    found = composite(photo, synthesis, kept, label, 10.0)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[kept], photo[kept])
    other = np.where(kept[..., None], photo, 255 - photo)
    np.testing.assert_array_equal(composite(other, synthesis, kept, label, 10.0), found)


def test_all_kept_and_nothing_kept():
    photo, synthesis = RNG.integers(0, 256, (2, 8, 9, 3), dtype=np.uint8)
    label = np.zeros((8, 9), int)
    np.testing.assert_array_equal(composite(photo, synthesis, np.ones((8, 9), bool), label, 4.0), photo)
    np.testing.assert_array_equal(composite(photo, synthesis, np.zeros((8, 9), bool), label, 4.0), synthesis)


def test_no_offset_passes_a_border_of_classes():
    """Sky 80 too dark, road right: the road's new pixels stay as they are, up to the horizon."""
    label = np.repeat([0, 1], 10)[:, None] * np.ones((1, 30), int)
    truth = np.where(label == 0, 200, 50).astype(np.uint8)[..., None].repeat(3, axis=-1)
    synthesis = truth - np.where(label == 0, 80, 0).astype(np.uint8)[..., None]
    kept = box((20, 30), 0, 10, 20, 10)
    np.testing.assert_array_equal(composite(truth, synthesis, kept, label, 8.0), truth)


def test_what_touches_nothing_of_its_class_takes_the_mean_of_its_class_at_its_height():
    label = np.zeros((40, 30), int)
    label[5:10, 2:6] = label[5:10, 24:28] = 1  # one kept, one not
    label[30:35, 2:6] = 2  # nothing of it is kept
    kept = box((40, 30), 0, 20, 40, 10)
    values = np.where(label == 1, 7.0, np.arange(40)[:, None] / 10)[..., None]
    found = membrane(values, kept, label, 16.0)
    np.testing.assert_allclose(found[5:10, 2:6], 7)
    np.testing.assert_allclose(found[30:35, 2:6], values[kept].mean())
    # A vertical gradient goes on to the side, however far.
    np.testing.assert_allclose(found[5:35, 0, 0], values[5:35, 0, 0], atol=0.1)


def test_rows_far_off_are_no_hole():
    label = np.zeros((3000, 2), int)
    values = np.zeros((3000, 2, 1))
    values[0] = 5.0
    found = expected(values, box((3000, 2), 0, 0, 1, 2), label, 1.0)
    np.testing.assert_allclose(found, 5)


def test_large_pictures_are_solved_as_well(monkeypatch):
    rng = np.random.default_rng(1)
    label = rng.integers(0, 3, (5, 7)).repeat(31, axis=0).repeat(23, axis=1)
    kept = box(label.shape, 40, 30, 71, 80)
    kept[100:, ::9] = True
    values = rng.normal(0, 20, (*label.shape, 3))
    whole = membrane(values, kept, label, 50.0)
    monkeypatch.setattr(seamless, "MAX_DIRECT", 500)
    steps = membrane(values, kept, label, 50.0)
    assert 0 < np.abs(steps - whole).max() < 0.1  # of 8-bit levels


def test_the_seam_is_no_larger_than_the_texture():
    """Texture of both sides differs, and an offset that grows along the border: no step is left."""
    y, x = np.mgrid[:64, :96]
    rng = np.random.default_rng(2)
    photo, noise = rng.normal(0, 6, (2, 64, 96, 1))
    photo = np.rint(120 + 40 * np.sin(y / 15)[..., None] + photo + np.zeros(3)).clip(0, 255).astype(np.uint8)
    drift = (30 + 0.5 * y - 0.3 * x)[..., None]
    synthesis = np.rint(120 + 40 * np.sin(y / 15)[..., None] - drift + noise + np.zeros(3)).clip(0, 255)
    synthesis = synthesis.astype(np.uint8)
    kept = box((64, 96), 12, 20, 40, 50)
    label = (y > 30).astype(int)
    found = composite(photo, synthesis, kept, label, 32.0)

    def seam(picture):
        return mean_jump(picture, label, lambda one, other: one != other)

    def mean_jump(picture, label, which):
        jumps = []
        for axis in (0, 1):
            cut = [np.moveaxis(a, axis, 0) for a in (picture.astype(float), label, kept)]
            (p, q), (a, b), (one, other) = ((c[:-1], c[1:]) for c in cut)
            jumps.append(np.abs(p - q)[(a == b) & which(one, other)].ravel())
        return np.concatenate(jumps).mean()

    inside = mean_jump(found, label, lambda one, other: one & other)
    assert seam(found) < 1.1 * inside
    # The measure sees what a plain paste leaves.
    assert seam(np.where(kept[..., None], photo, synthesis)) > 3 * inside
