import numpy as np
import pytest
from PIL import Image

from mscaflax.data.grids import Column, picture_grid


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 256, (2, 8, 10, 3)).astype(np.uint8)
    photos = rng.uniform(-1, 1, (2, 8, 10, 3)).astype(np.float32)
    return [Column("label map", labels, flat=True), Column("another photo as exemplar of it", photos)]


def test_small_pictures_are_enlarged_and_label_maps_keep_their_colours(columns):
    grid = np.asarray(picture_grid(columns, min_cell=40, gap=4))
    # factor 5: cells of 40 x 50; the last row ends 8 pixels above the bottom edge
    assert grid.shape[1] == 2 * 54 + 4
    bottom = grid.shape[0] - 8
    cell = grid[bottom - 40 : bottom, 4:54]
    np.testing.assert_array_equal(cell, columns[0].images[1].repeat(5, 0).repeat(5, 1))
    upper = grid[bottom - 84 : bottom - 44, 4:54]
    np.testing.assert_array_equal(upper, columns[0].images[0].repeat(5, 0).repeat(5, 1))


def test_large_pictures_keep_their_pixels(columns):
    grid = np.asarray(picture_grid(columns, min_cell=8, gap=4))
    bottom = grid.shape[0] - 8
    found = grid[bottom - 8 : bottom, 18:28]
    np.testing.assert_array_equal(found, np.rint((columns[1].images[1] + 1) * 127.5).astype(np.uint8))


def test_titles_are_written_inside_their_columns(columns):
    plain = np.asarray(picture_grid(columns, min_cell=128, gap=6))
    header = plain[: plain.shape[0] - 2 * 134 - 6]
    dark = header.min(axis=2) < 128
    width = (plain.shape[1] - 6) // 2 - 6
    left, right = dark[:, : 6 + width], dark[:, 12 + width :]
    # "label map" takes one line, the longer title two; the gap between the columns stays empty
    assert left.any() and right.any() and not dark[:, 6 + width : 12 + width].any()
    assert np.flatnonzero(right.any(1))[0] < np.flatnonzero(left.any(1))[0]
    assert np.ptp(np.flatnonzero(left.any(1))) >= 10


def test_result_is_an_rgb_picture(columns, tmp_path):
    path = tmp_path / "grid.png"
    picture_grid(columns).save(path)
    with Image.open(path) as picture:
        assert picture.mode == "RGB"


def test_wrong_columns(columns):
    with pytest.raises(ValueError, match="one shape"):
        picture_grid([columns[0], Column("x", np.zeros((3, 8, 10, 3), np.uint8))])
    with pytest.raises(ValueError, match="one shape"):
        picture_grid([])
