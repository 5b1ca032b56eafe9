"""The studio's page in a real browser: paint, fill, undo, open files, download, be told what is wrong."""

import re

import numpy as np
import pytest
from PIL import Image

from mscaflax.apps.blend import Blender
from mscaflax.apps.explain import region_colours
from mscaflax.apps.inputs import read_exemplar, read_layout
from mscaflax.apps.studio.service import Job
from mscaflax.data import scenes

pytestmark = pytest.mark.slow

SKY, TREE, WATER = (scenes.CLASS_NAMES.index(name) for name in ("sky", "tree", "water"))
COLOURS = np.array([*scenes.PALETTE, (0, 0, 0)], np.uint8)


def first_exemplar(studio):
    return studio.examples[1][0][1]


def drop(page, selector, *paths):
    """What the drop of files on an element does."""
    page.driver.execute_script(
        "const input = document.createElement('input');"
        "document.body.append(Object.assign(input, {type: 'file', multiple: true, id: 'dropped'}))"
    )
    page.find("#dropped").send_keys("\n".join(map(str, paths)))
    page.driver.execute_script(
        "const data = new DataTransfer(), input = document.getElementById('dropped');"
        "for (const f of input.files) data.items.add(f);"
        "input.remove();"
        "document.querySelector(arguments[0]).dispatchEvent("
        "new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}))",
        selector,
    )


def expected(studio, ids, exemplars, weights, seed=0):
    layout = read_layout(studio.model, ids)
    return Blender(studio.model, layout, exemplars, seed).mix(weights)


def test_paint_fill_undo_and_download(page, studio):
    start = page.ids()
    np.testing.assert_array_equal(start, studio.example_layouts(studio.sizes[0])[0][1])

    page.pick(TREE)
    page.another_picture(lambda: page.stroke((5, 5), (40, 12), (40, 25)))
    painted = page.ids()
    changed = painted != start
    assert (painted[changed] == TREE).all() and changed.sum() > 60
    assert painted[5, 5] == painted[12, 40] == painted[20, 40] == TREE

    page.click("[data-tool=fill]")
    page.pick(WATER)
    page.another_picture(lambda: page.stroke((5, 5)))
    filled = page.ids()
    assert filled[20, 40] == WATER and (filled != painted).sum() >= 60
    assert (painted[filled != painted] == TREE).all()

    page.another_picture(lambda: page.click("#undo"))
    np.testing.assert_array_equal(page.ids(), painted)
    page.another_picture(lambda: page.click("#undo"))
    np.testing.assert_array_equal(page.ids(), start)
    page.another_picture(lambda: page.click("#redo"))
    np.testing.assert_array_equal(page.ids(), painted)

    found = page.download()
    exemplar = first_exemplar(studio)
    np.testing.assert_array_equal(found, expected(studio, painted, [exemplar], [1]))
    np.testing.assert_array_equal(found, page.canvas("#picture"))
    np.testing.assert_array_equal(page.download("#save-map", "layout.png"), COLOURS[painted])


def test_opened_files_give_the_picture_of_the_synthesizer(page, studio, photo_folder, tmp_path):
    label = np.random.default_rng(0).integers(0, 12, (16, 32)).repeat(2, 0).repeat(2, 1).astype(np.uint8)
    Image.fromarray(label).save(tmp_path / "map.png")
    page.another_picture(lambda: page.find("#map-file").send_keys(str(tmp_path / "map.png")))
    np.testing.assert_array_equal(page.ids(), label)

    photo, map_of_photo = (photo_folder / kind / "train/3.png" for kind in ("images", "annotations"))
    (tmp_path / "street.png").write_bytes(photo.read_bytes())
    (tmp_path / "street_label.png").write_bytes(map_of_photo.read_bytes())
    page.another_picture(lambda: drop(page, ".slot", tmp_path / "street.png", tmp_path / "street_label.png"))
    found = page.download()
    by_api = studio.synthesizer(label.astype(int), photo, map_of_photo)
    exemplar = read_exemplar(studio.model, photo, map_of_photo)
    np.testing.assert_array_equal(found, expected(studio, label.astype(int), [exemplar], [1]))
    np.testing.assert_array_equal(found, by_api)

    # A second photo, from the examples: mixed, beyond the second, with another seed.
    page.click("#slots .add")
    page.another_picture(lambda: page.click("#exemplars button:nth-child(3)"))
    set_value = (
        "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    page.another_picture(lambda: page.driver.execute_script(set_value, "#blend", "1.5"))
    page.another_picture(lambda: page.driver.execute_script(set_value, "#seed", "7"))
    both = [exemplar, studio.examples[1][2][1]]
    np.testing.assert_array_equal(
        page.download(), expected(studio, label.astype(int), both, [-0.5, 1.5], seed=7)
    )


def test_pointing_shows_what_feeds_a_place(page):
    page.driver.execute_script("document.getElementById('picture').scrollIntoView({block: 'center'})")
    page.find("#picture").send_keys("\ue014")  # the right arrow key
    said = page.find("#source").text
    assert "feeds" in said and "let through" in said
    alpha = page.pixels(".over-photo")[..., 3]
    assert alpha.min() < 10 and alpha.max() > 30


def test_hovering_lights_up_what_feeds_what_and_leaving_clears_it(page, studio):
    found = first_explanation(page, studio)
    (height, width), (photo_height, photo_width) = found.assignment.shape[1:], found.attention.shape[1:]
    through = found.gate[:, None, None] * found.attention

    page.hover("#picture", 0.3, 0.6)
    heat = np.einsum("k,khw->hw", found.assignment[:, int(0.6 * height), int(0.3 * width)], through)
    assert_veils(page.pixels(".over-photo"), heat)
    first = page.pixels("#picture-over")
    assert first[..., 3].any() and "feeds" in page.find("#source").text
    page.hover("#picture", 0.8, 0.2)
    assert (page.pixels("#picture-over") != first).any()
    page.hover("#picture", 0.5, -0.1)
    assert not page.pixels("#picture-over").any() and not page.pixels(".over-photo").any()

    page.hover(".slot .stage", 0.4, 0.7)
    sent = through[:, int(0.7 * photo_height), int(0.4 * photo_width)]
    heat = np.einsum("k,khw->hw", sent, found.assignment)
    over = page.pixels("#picture-over")
    step = len(over) // height
    assert_veils(over[step // 2 :: step, step // 2 :: step], heat)
    assert "what this place of the photo feeds" in page.find("#source").text
    page.hover(".slot .stage", 0.5, 1.6)
    assert not page.pixels("#picture-over").any()


def test_regions_are_tinted_in_both_pictures(page, studio):
    found = first_explanation(page, studio)
    assert not page.pixels("#picture-over").any()
    page.click("#regions")
    sent = (found.use * found.gate)[:, None, None] * found.attention
    tinted = page.pixels(".over-photo")
    expected = region_colours(len(sent))[sent.argmax(axis=0)]
    # The browser keeps colours times their opacity, in whole numbers; the page has α in 255 levels.
    alike = np.abs(tinted[..., :3].astype(int) - expected).max(axis=-1) <= 2
    assert tinted.shape[:2] == sent.shape[1:] and alike.mean() > 0.95
    picture = page.pixels("#picture-over")
    assert (picture[..., 3] > 150).all() and (tinted[..., 3] == 165).all()

    page.hover("#picture", 0.3, 0.6)
    assert (page.pixels("#picture-over") != picture).any()
    page.hover("#picture", 0.5, -0.1)
    np.testing.assert_array_equal(page.pixels("#picture-over"), picture)
    np.testing.assert_array_equal(page.pixels(".over-photo"), tinted)
    page.click("#regions")
    assert not page.pixels("#picture-over").any() and not page.pixels(".over-photo").any()


def test_a_region_of_the_list_is_shown_in_both_pictures(page, studio):
    found = first_explanation(page, studio)
    page.click("#inside summary")
    rows = [row.text for row in page.driver.find_elements("css selector", "#region-list button")]
    assert len(rows) == len(found.use)
    for place, (row, use, gate) in enumerate(zip(rows, found.use, found.gate, strict=True), 1):
        assert row.startswith(f"{place}: ") and "of the picture, let through" in row
        shares = [int(share) for share in re.findall(r"(\d+)\s%", row)]
        np.testing.assert_allclose(shares, [100 * use, 100 * gate], atol=0.51)
    page.hover("#region-list li:nth-child(2) button", 0.5, 0.5)
    assert_region(page, found, 1)
    assert page.find("#source").text == f"Region {rows[1]}."
    page.hover("h1", 0.5, 0.5)
    assert not page.pixels("#picture-over").any() and not page.pixels(".over-photo").any()

    # The Tab key leads to the list, the arrow keys from region to region, and the focus outlasts a picture.
    page.find("#scale").send_keys("\ue004\ue015")
    assert_region(page, found, 1)
    page.another_picture(lambda: page.driver.execute_script("document.getElementById('dice').click()"))
    assert_region(page, found, 1)


def test_another_scale_can_be_chosen(page, studio):
    usual = first_explanation(page, studio)
    picture = page.canvas("#picture")
    page.click("#inside summary")
    options = page.driver.find_elements("css selector", "#scale option")
    assert page.find("#scale").get_property("value") == str(usual.scale) and len(options) > 1
    page.another_picture(lambda: page.find("#scale option[value='0']").click())
    found = first_explanation(page, studio, scale=0)
    assert found.assignment.shape != usual.assignment.shape
    page.hover("#region-list li:first-child button", 0.5, 0.5)
    assert_region(page, found, 0)
    np.testing.assert_array_equal(page.canvas("#picture"), picture)


def test_without_a_photo_no_picture_is_shown_or_saved(page):
    page.another_picture(lambda: page.click("#dice"))
    page.click("[aria-label='Remove exemplar 1']")
    page.until(lambda: not page.pixels("#picture").any())
    page.until(lambda: page.find("#waiting").value_of_css_property("opacity") == "1")
    assert page.find("#waiting").text == "Choose a photo for the style"
    link = page.find("#download")
    assert link.get_attribute("href") is None and link.get_attribute("aria-disabled") == "true"
    assert page.find("#time").text == "" and not page.find("#region-list").get_property("childElementCount")
    page.hover("#picture", 0.3, 0.6)
    assert not page.pixels("#picture-over").any()
    page.another_picture(lambda: page.click("#exemplars button:nth-child(2)"))
    assert (page.download() == page.canvas("#picture")).all()


def first_explanation(page, studio, scale=None):
    """The Explanation of the picture that the page begins with."""
    layout = page.ids().astype(np.uint8)
    return studio.synthesize(Job(layout, (first_exemplar(studio),), (1.0,), 0, scale)).explanations[0]


def assert_region(page, found, k):
    """Region k of an Explanation is what lights up: α over the photo, β over the picture."""
    assert_veils(page.pixels(".over-photo"), found.attention[k])
    over = page.pixels("#picture-over")
    step = len(over) // found.assignment.shape[1]
    assert_veils(over[step // 2 :: step, step // 2 :: step], found.assignment[k])


def assert_veils(overlay, heat):
    """The hotter, the clearer: an overlay is clear at the highest heat, and dark where it is cold."""
    opacity = overlay[..., 3].astype(float)
    assert opacity[heat >= np.quantile(heat, 0.98)].max() <= opacity.max() / 4
    assert np.corrcoef(opacity.ravel(), -np.sqrt(heat.ravel()))[0, 1] > 0.8


def test_keys_paint_too(page):
    before = page.ids()
    page.pick(WATER)
    page.another_picture(lambda: page.find("#map").send_keys("[[[[[[[ "))
    changed = page.ids() != before
    assert changed.sum() == (before[16, 32] != WATER) and (page.ids()[changed] == WATER).all()


def test_wrong_files_are_said_in_the_page(page, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    before = page.ids()
    page.find("#map-file").send_keys(str(tmp_path / "notes.png"))
    page.until(lambda: "not an image in a known format" in page.message)
    Image.fromarray(np.full((64, 128), 77, np.uint8)).save(tmp_path / "ids.png")
    page.find("#map-file").send_keys(str(tmp_path / "ids.png"))
    page.until(lambda: "label id 77" in page.message)
    with open(tmp_path / "large.png", "wb") as large:
        large.truncate(21 * 2**20)
    page.find("#map-file").send_keys(str(tmp_path / "large.png"))
    page.until(lambda: "has more than 20 MB" in page.message)
    # Each of them would pass, but a request carries both.
    for name in ("both.png", "both_label.png"):
        with open(tmp_path / name, "wb") as half:
            half.truncate(12 * 2**20)
    drop(page, ".slot", tmp_path / "both.png", tmp_path / "both_label.png")
    page.until(lambda: "both.png and both_label.png together have more than 20 MB" in page.message)
    assert "together have more than 20 MB" in page.find(".slot .foot").text
    np.testing.assert_array_equal(page.ids(), before)
    # The page goes on as if nothing had happened.
    page.another_picture(lambda: page.click("#dice"))
    assert page.message == ""


def test_a_photo_without_a_map_waits_for_it(page, photo_folder):
    page.driver.execute_script("document.getElementById('photo-file').click = () => {}")
    page.click(".slot .foot button")
    page.find("#photo-file").send_keys(str(photo_folder / "images/train/3.png"))
    page.until(lambda: "no segmenter" in page.message)
    page.driver.execute_script("document.getElementById('label-file').click = () => {}")
    page.click(".slot .foot button")
    page.another_picture(
        lambda: page.find("#label-file").send_keys(str(photo_folder / "annotations/train/3.png"))
    )
    assert page.message == ""
