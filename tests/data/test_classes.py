import hashlib
import json

import numpy as np
import pytest

from mscaflax.data.classes import ClassTable, read_classes_file
from mscaflax.data.coco_stuff import coco_stuff_classes
from mscaflax.errors import UserError

NAMES = ("sky", "road")
PALETTE = ((1, 2, 3), (4, 5, 6))


def test_json_and_back_is_the_same_table(tmp_path):
    table = ClassTable(NAMES, PALETTE, ignore=7)
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(table.to_json()))
    assert read_classes_file(path) == table
    assert hash(ClassTable(list(NAMES), [list(c) for c in PALETTE], 7)) == hash(table)


def test_ignore_is_255_where_the_file_does_not_say():
    assert ClassTable.from_json({"classes": ["a"], "palette": [[0, 0, 0]]}).ignore == 255


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "not a JSON object"),
        ({"palette": []}, "lacks the list 'classes'"),
        ({"classes": ["a"]}, "lacks the list 'palette'"),
        ({"classes": [], "palette": []}, "0 classes: give between 1 and 255"),
        ({"classes": ["a", "b"], "palette": [[0, 0, 0]]}, "2 classes but 1 colours"),
        ({"classes": ["a"], "palette": [[0, 0, 256]]}, "[0, 0, 256] of 'a' is not three integers in 0..255"),
        ({"classes": ["a"], "palette": [[0, 0]]}, "[0, 0] of 'a'"),
        ({"classes": ["a"], "palette": ["red"]}, "'red' is not a list"),
        ({"classes": ["a", "b"], "palette": [[1, 1, 1], [1, 1, 1]]}, "'a' and 'b' share the colour"),
        ({"classes": ["a", "a"], "palette": [[1, 1, 1], [2, 2, 2]]}, "'a' occurs twice"),
        ({"classes": [3], "palette": [[1, 1, 1]]}, "3 is not a text"),
        ({"classes": ["a"], "palette": [[1, 1, 1]], "ignore": 256}, "ignore value 256"),
    ],
)
def test_bad_tables_are_refused_with_the_file_named(tmp_path, value, message):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UserError) as error:
        read_classes_file(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_missing_or_broken_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the classes file .*none\.json: No such file"):
        read_classes_file(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match=r"broken\.json is not a JSON file"):
        read_classes_file(tmp_path / "broken.json")


def test_unlabelled_is_black_or_the_nearest_free_colour():
    assert ClassTable(NAMES, PALETTE).palette_array[-1].tolist() == [0, 0, 0]
    near_black = ((0, 0, 0), (0, 0, 1), (0, 1, 0))
    table = ClassTable(("a", "b", "c"), near_black)
    assert table.palette_array[-1].tolist() == [1, 0, 0]
    assert table.palette_array.dtype == np.uint8
    shades = [(r, g, b) for r in range(8) for g in range(8) for b in range(8)][:255]
    crowded = ClassTable(tuple(map(str, range(255))), tuple(shades))
    assert len(np.unique(crowded.palette_array, axis=0)) == 256


def test_colorize_takes_leading_axes_and_refuses_other_ids():
    table = ClassTable(NAMES, PALETTE)
    label = np.array([[[0, 1], [2, 0]]], np.int32)
    assert table.colorize(label).tolist() == [[[[1, 2, 3], [4, 5, 6]], [[0, 0, 0], [1, 2, 3]]]]
    for bad in (-1, 3):
        with pytest.raises(UserError, match=rf"{bad}.* do not lie in 0\.\.2"):
            table.colorize(np.array([[bad, 0]]))


def test_coco_stuff_names_are_the_official_ones_in_order():
    table = coco_stuff_classes()
    assert table.num_classes == 182 and table.ignore == 255
    # Ids of the maps: one less than in the official list, which begins with 0 = unlabeled.
    official = {0: "person", 11: "street sign", 61: "chair", 90: "hair brush", 91: "banner", 123: "grass"}
    official |= {148: "road", 154: "sea", 156: "sky-other", 168: "tree", 177: "water-other", 181: "wood"}
    assert {i: table.names[i] for i in official} == official
    # SHA-256 of the official labels.txt, its 182 names after the first joined with bars.
    digest = "8334293d92d284908173e49b150eb2fbad184fea27ca07aac75d73538e437e26"
    assert hashlib.sha256("|".join(table.names).encode()).hexdigest() == digest


def test_coco_stuff_colours_can_be_told_apart():
    colours = coco_stuff_classes().palette_array.astype(int)
    distance = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(183, dtype=int)
    assert distance.min() >= 15
