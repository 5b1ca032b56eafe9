"""What the attention shows: maps that lie where they should, in the order of use."""

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mscaflax import Synthesizer, UserError
from mscaflax.apps.explain import explain, heat_over, region_colours
from mscaflax.apps.inputs import read_exemplar, read_layout


@pytest.fixture(scope="module")
def synthesizer(tiny_run):
    return Synthesizer.from_workdir(tiny_run)


@pytest.fixture(scope="module")
def given(photo_folder):
    """A label map of an odd size, a photo and its map."""
    label = np.asarray(Image.open(photo_folder / "annotations/val/0.png"))[:50, :70]
    photo = np.asarray(Image.open(photo_folder / "images/train/0.png"))[16:48, 20:52]
    return label, photo, np.asarray(Image.open(photo_folder / "annotations/train/0.png"))[16:48, 20:52]


@pytest.fixture(scope="module")
def explanation(synthesizer, given):
    return synthesizer.explain(*given, scale=1, seed=3)


def test_the_picture_is_that_of_a_call(explanation, synthesizer, given):
    assert explanation.picture.shape == (50, 70, 3)
    np.testing.assert_array_equal(explanation.picture, synthesizer(*given, seed=3))


def test_maps_are_distributions_in_the_order_of_use(explanation):
    assert explanation.scale == 1
    np.testing.assert_allclose(explanation.attention.sum(axis=(1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(explanation.assignment.sum(axis=0), 1, rtol=1e-5)
    assert (np.diff(explanation.use) <= 0).all() and explanation.use.sum() == pytest.approx(1, rel=1e-5)
    assert sorted(explanation.regions) == [0, 1, 2, 3]
    # Of the content alone: the padding of 50x70 to 64x80 belongs to no region.
    inside = explanation.assignment[:, :25, :35].mean(axis=(1, 2))
    np.testing.assert_allclose(explanation.use, inside, rtol=1e-4)


def test_maps_lie_on_the_pictures(explanation):
    over_exemplar, over_picture = explanation.over_exemplar(), explanation.over_picture()
    assert over_exemplar.shape == (4, *explanation.exemplar.shape[:2]) and over_picture.shape == (4, 50, 70)
    # A maximum of the coarse map lies where it lay, one coarse cell around.
    for coarse, fine in zip(explanation.attention, over_exemplar, strict=True):
        expected = np.array(np.unravel_index(coarse.argmax(), coarse.shape)) * 2
        assert np.abs(np.array(np.unravel_index(fine.argmax(), fine.shape)) - expected).max() <= 2
    from_where, to_where = explanation.winners()
    assert from_where.shape == explanation.exemplar.shape[:2] and to_where.shape == (50, 70)
    assert set(np.unique(to_where)) <= set(range(4))


def test_a_known_attention_is_shown_where_it_is(explanation):
    attention = np.zeros((4, 16, 16), np.float32)
    attention[:, 0, 0] = 1
    attention[2] = np.roll(attention[2], (8, 8), axis=(0, 1))
    attention[[1, 3]] = 1 / 256
    assignment = np.zeros((4, 32, 40), np.float32)
    assignment[0, :, :20], assignment[2, :, 20:] = 1, 1
    share = np.array([0.5, 0, 0.5, 0], np.float32)
    known = dataclasses.replace(explanation, attention=attention, assignment=assignment, use=share)
    from_where, to_where = known.winners()
    height, width = explanation.exemplar.shape[:2]
    assert from_where[height // 2, width // 2] == 2 and from_where[0, 0] == 0
    assert (to_where[:, :38] == 0).all() and (to_where[:, 42:] == 2).all()


@pytest.mark.parametrize(("gate", "winner"), [(0.9, 1), (0.1, 0)])
def test_a_place_is_of_the_region_by_which_it_sends_most(gate, winner, explanation):
    # 0 looks everywhere alike, 1 at the upper left quarter alone: four times as hard, for half of the target.
    attention = np.zeros((4, 16, 16), np.float32)
    attention[0], attention[1, :8, :8] = 1 / 256, 1 / 64
    attention[2:, 15, 15] = 1
    assignment = np.zeros((4, 32, 40), np.float32)
    assignment[0, :, :24], assignment[1, :, 24:36], assignment[2, :, 36:] = 1, 1, 1
    gates = np.array([1, gate, 0, 1], np.float32)
    known = dataclasses.replace(
        explanation,
        attention=attention,
        assignment=assignment,
        gate=gates,
        use=assignment.mean(axis=(1, 2)),
    )
    from_where, _ = known.winners()
    height, width = explanation.exemplar.shape[:2]
    assert from_where[height // 4, width // 4] == winner and from_where[-height // 4, width // 4] == 0
    # By the definition, place by place: the mean over the target of what goes from here to there.
    moved = np.einsum("kij,k,kqr->qrk", assignment, gates, attention) / assignment[0].size
    coarse = moved.argmax(axis=-1)
    assert coarse[4, 4] == winner and coarse[12, 4] == 0
    np.testing.assert_allclose(known.sent()[:, height // 4, width // 4], moved[4, 4], rtol=1e-4, atol=1e-9)


def test_regions_are_things_unless_told_otherwise(synthesizer, given):
    assert synthesizer.explain(*given).scale == 2


def test_the_drawing_changes_with_what_it_shows(explanation):
    drawn = explanation.draw(2)
    assert drawn.dtype == np.uint8 and drawn.shape[-1] == 3
    assert explanation.draw(4).shape[0] > drawn.shape[0]
    assert (explanation.draw(99) == explanation.draw(4)).all()
    other = dataclasses.replace(explanation, attention=explanation.attention[:, ::-1, ::-1])
    assert (other.draw(2) != drawn).any()


@pytest.mark.parametrize(("h", "w"), [(128, 64), (64, 64), (64, 128), (640, 8)])
def test_no_text_reaches_another(h, w, explanation, monkeypatch):
    """Nor the border, whatever the shape of the pictures."""
    boxes, write = [], ImageDraw.ImageDraw.text

    def written(draw, place, text, ink, font, anchor=None):
        boxes.append(draw.textbbox(place, text, font, anchor))
        write(draw, place, text, ink, font, anchor)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", written)
    picture = np.zeros((h, w, 3), np.uint8)
    narrow = dataclasses.replace(
        explanation,
        picture=picture,
        exemplar=picture,
        assignment=np.full((4, h // 2, w // 2), 0.25, np.float32),
        use=np.ones(4, np.float32),
        gate=np.ones(4, np.float32),
    )
    height, width = narrow.draw(4).shape[:2]
    assert len(boxes) == 8
    for index, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0 and right <= width and top >= 0 and bottom <= height
        for other_left, other_top, other_right, other_bottom in boxes[:index]:
            assert right < other_left or other_right < left or bottom <= other_top or other_bottom <= top, (
                boxes,
                index,
            )


@pytest.mark.parametrize("count", [0, -3])
def test_a_drawing_shows_a_region_at_least(count, explanation):
    with pytest.raises(UserError, match=f"a drawing of {count} regions shows none: give 1 or more"):
        explanation.draw(count)


def test_colours_differ_and_heat_is_brighter():
    colours = region_colours(16).astype(int)
    distances = np.abs(colours[:, None] - colours[None]).sum(axis=-1)
    assert distances[~np.eye(16, dtype=bool)].min() > 30
    photo = np.full((1, 3, 3), 128, np.uint8)
    drawn = heat_over(photo, np.array([[0, 0.5, 1]])).astype(int).sum(axis=-1)[0]
    assert drawn[0] < drawn[1] < drawn[2] == 3 * 255


def test_padding_is_no_part_of_the_use(synthesizer, given):
    label, photo, photo_label = given
    exemplar = read_exemplar(synthesizer.model, photo, photo_label)
    found = explain(synthesizer.model, read_layout(synthesizer.model, label[:32, :49]), exemplar, 0)
    assert found.assignment.shape == (4, 32, 64) and found.over_picture().shape == (4, 32, 49)
    np.testing.assert_allclose(found.use, found.assignment[:, :, :49].mean(axis=(1, 2)), rtol=1e-4)
    # The padding is used otherwise: with it, these shares would be others.
    with_padding = found.assignment.mean(axis=(1, 2))
    assert np.abs(found.use / with_padding - 1).max() > 0.01


@pytest.mark.parametrize("scale", [-1, 5])
def test_a_scale_that_is_not_there(scale, synthesizer, given):
    with pytest.raises(UserError, match=f"scale {scale} has no attention: choose one of 0, 1, 2, 3, 4"):
        synthesizer.explain(*given, scale=scale)
