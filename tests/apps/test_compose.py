"""Photos continued and edited: what is kept is kept bit for bit, and what is wrong is said in a line."""

import numpy as np
import pytest
from PIL import Image

from mscaflax import Synthesizer, UserError, cli
from mscaflax.apps import compose
from mscaflax.apps.compose import find_place
from mscaflax.training.model import Model

AT = (8, 24)  # the photo in the whole picture


@pytest.fixture(scope="module")
def synthesizer(tiny_run):
    return Synthesizer.from_workdir(tiny_run)


@pytest.fixture(scope="module")
def files(photo_folder, tmp_path_factory):
    """whole.png, its label map layout.png; photo.png, label.png, a part of them; edited.png."""
    folder = tmp_path_factory.mktemp("compose")
    box = (AT[1], AT[0], AT[1] + 64, AT[0] + 40)
    for kind, whole, part in (("images", "whole", "photo"), ("annotations", "layout", "label")):
        image = Image.open(photo_folder / kind / "val/0.png")
        image.save(folder / f"{whole}.png")
        image.crop(box).save(folder / f"{part}.png")
    edited = read(folder / "label.png").copy()
    edited[10:20, 30:50] = (edited[10:20, 30:50] + 1) % 12
    Image.fromarray(edited).save(folder / "edited.png")
    return folder


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def arrays(files):
    return {path.stem: read(path) for path in files.iterdir()}


@pytest.fixture(scope="module")
def larger(synthesizer, arrays):
    return synthesizer.extrapolate(arrays["photo"], arrays["label"], arrays["layout"], seed=3)


@pytest.fixture(scope="module")
def changed(synthesizer, arrays):
    return synthesizer.edit(arrays["photo"], arrays["label"], arrays["edited"], margin=2, seed=3)


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(Model, "generate", None)


def part(picture, at=AT):
    return picture[at[0] : at[0] + 40, at[1] : at[1] + 64]


def test_the_photo_stays_as_it_is(larger, arrays):
    assert larger.shape == arrays["whole"].shape and larger.dtype == np.uint8
    np.testing.assert_array_equal(part(larger), arrays["photo"])
    outside = np.ones(larger.shape[:2], bool)
    part(outside)[:] = False
    assert larger[outside].std() > 2


def test_only_the_edit_and_its_margin_change(changed, arrays):
    touched = np.zeros(arrays["label"].shape, bool)
    rows, columns = np.nonzero(arrays["edited"] != arrays["label"])
    for y, x in np.ndindex(touched.shape):
        touched[y, x] = (abs(rows - y) + abs(columns - x)).min() <= 2
    np.testing.assert_array_equal(changed[~touched], arrays["photo"][~touched])
    inner = arrays["edited"] != arrays["label"]
    assert (changed[inner] != arrays["photo"][inner]).any(axis=-1).mean() > 0.9


def test_the_margin(synthesizer, arrays, changed):
    given = arrays["photo"], arrays["label"], arrays["edited"]
    narrow = synthesizer.edit(*given, margin=0, seed=3)
    everything, beyond = (synthesizer.edit(*given, margin=n, seed=3) for n in (40 + 64, 3_000_000_000))
    np.testing.assert_array_equal(beyond, everything)
    assert (everything != arrays["photo"]).any(axis=-1).mean() > 0.9
    same = arrays["edited"] == arrays["label"]
    np.testing.assert_array_equal(narrow[same], arrays["photo"][same])
    assert (changed[same] != arrays["photo"][same]).any()
    # Of a photo of 40×64 pixels the mean patch has 24, seen as 32: two pixels there are 1.5 here.
    np.testing.assert_array_equal(synthesizer.edit(*given, seed=3), changed)


def test_nothing_to_do_gives_the_photo(synthesizer, arrays, no_network):
    photo, label = arrays["photo"], arrays["label"]
    for found in (synthesizer.edit(photo, label, label), synthesizer.extrapolate(photo, label, label)):
        np.testing.assert_array_equal(found, photo)
        assert found is not photo


def test_the_same_call_gives_the_same_picture(synthesizer, arrays, larger):
    given = arrays["photo"], arrays["label"], arrays["layout"]
    np.testing.assert_array_equal(synthesizer.extrapolate(*given, at=AT, seed=3), larger)


def test_the_photos_own_labels_count_where_it_lies(synthesizer, arrays, larger):
    layout = arrays["layout"].copy()
    part(layout)[:] = 7
    given = arrays["photo"], arrays["label"], layout
    np.testing.assert_array_equal(synthesizer.extrapolate(*given, at=AT, seed=3), larger)


def test_layout_and_exemplar_enter_the_network_at_one_scale(synthesizer, arrays, monkeypatch):
    """Of a photo four times as large the network sees what it sees of the small one."""
    seen = []
    generate = Model.generate

    def spy(self, label, exemplar, *rest):
        seen.append((label, exemplar.shape))
        return generate(self, label, exemplar, *rest)

    monkeypatch.setattr(Model, "generate", spy)
    small = arrays["photo"], arrays["label"], arrays["layout"]
    large = [x.repeat(4, axis=0).repeat(4, axis=1) for x in small]
    synthesizer.extrapolate(*small, at=AT)
    found = synthesizer.extrapolate(*large, at=(4 * AT[0], 4 * AT[1]))
    (label, shape), (large_label, large_shape) = seen
    assert shape == large_shape and label.shape == large_label.shape
    assert (label == large_label).mean() > 0.97
    assert found.shape == (256, 512, 3)
    np.testing.assert_array_equal(found[32:192, 96:352], large[0])


@pytest.mark.parametrize("at", [(0, 0), (3, 7), (24, 64)])
def test_the_place_is_found(at, arrays):
    layout = arrays["layout"].copy()
    assert find_place(part(layout, at), layout) == at
    part(layout, at)[::5, ::5] = 11  # retouched
    assert find_place(part(arrays["layout"], at), layout) == at


def test_of_several_places_the_one_in_the_middle():
    assert find_place(np.zeros((3, 4), int), np.zeros((9, 12), int)) == (3, 4)
    layout = np.zeros((9, 12), int)
    layout[:, 3:] = 1
    assert find_place(np.array([[0, 1]]), layout) == (4, 2)


PHOTO, LABEL = np.zeros((40, 64, 3), np.uint8), np.zeros((40, 64), np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.edit(PHOTO, LABEL[1:], LABEL), r"the photo is 64x40 pixels .*, its label map 64x39"),
        (lambda s: s.edit(PHOTO, LABEL, LABEL[:, 2:]), r"64x40 pixels .*, the edited label map 62x40: give"),
        (lambda s: s.edit(PHOTO, LABEL, LABEL + 99), r"the edited label map holds 99..99, allowed are 0..12"),
        (lambda s: s.edit(PHOTO, LABEL, LABEL, margin=-1), "the margin -1 is negative"),
        (lambda s: s.edit(PHOTO / 2, LABEL, LABEL), "the photo must be uint8"),
        (lambda s: s.edit(PHOTO, LABEL, LABEL, seed=-1), "the seed -1 is outside"),
        (lambda s: s.extrapolate(PHOTO, LABEL, LABEL[1:]), "the photo is 64x40 pixels, the layout 64x39"),
        (
            lambda s: s.extrapolate(PHOTO, LABEL, np.zeros((50, 70), int), at=(11, 0)),
            r"a photo of 64x40 pixels at 11,0 \(top, left\) does not lie in the layout of 70x50",
        ),
        (lambda s: s.extrapolate(PHOTO, LABEL, np.zeros((50, 70), int), at=(0, -1)), "at 0,-1 .* not lie in"),
        (
            lambda s: s.extrapolate(PHOTO, LABEL, np.ones((50, 70), int)),
            r"fits nowhere in the layout: at best 0% of it, at 5,3 \(top, left\); say where",
        ),
        (
            lambda s: s.extrapolate(PHOTO, LABEL, np.broadcast_to(LABEL[:1, :1], (2049, 2048))),
            "the layout has 2048x2049 pixels: make it smaller",
        ),
        (lambda s: s.extrapolate(PHOTO, LABEL, LABEL, seed=2**32), "the seed 4294967296 is outside"),
    ],
)
def test_what_does_not_fit(call, message, synthesizer, no_network):
    with pytest.raises(UserError, match=message):
        call(synthesizer)


def test_a_tiny_photo_in_a_large_layout_stays_within_the_limits(synthesizer, monkeypatch):
    sizes = []

    def spy(self, label, *rest):
        sizes.append(label.shape)
        return np.zeros((*label.shape, 3))

    monkeypatch.setattr(Model, "generate", spy)
    monkeypatch.setattr(compose, "MAX_PIXELS", 90_000)
    photo = np.full((4, 4, 3), 77, np.uint8)
    found = synthesizer.extrapolate(photo, LABEL[:4, :4], np.zeros((100, 300), int))
    assert found.shape == (100, 300, 3) and sizes == [(1, 176, 528)]
    assert (found == 77).all()  # a constant offset


@pytest.fixture
def arguments(tiny_run, files):
    given = [f"--workdir={tiny_run}", f"--photo={files}/photo.png", f"--photo_label={files}/label.png"]
    return {
        "edit": ["edit", *given, f"--label={files}/edited.png", "--seed=3"],
        "extrapolate": ["extrapolate", *given, f"--label={files}/layout.png", "--seed=3"],
    }


def test_the_command_lines(arguments, files, tmp_path, capsys, larger, changed, arrays):
    def picture(command, *how):
        file = tmp_path / "picture.png"
        assert cli.main([*arguments[command], f"--output={file}", *how]) == 0
        out, err = capsys.readouterr()
        assert out == f"{file}\n" and list(tmp_path.iterdir()) == [file]
        return read(file), err

    for how, expected, said in [
        (["extrapolate"], larger, "the photo's label map fits at --at=8,24\n"),
        (["extrapolate", "--at=8,24"], larger, ""),
        (["edit"], changed, ""),
        (["edit", "--margin=2"], changed, ""),
        (
            ["edit", f"--label={files}/label.png"],
            arrays["photo"],
            "are equal: the picture is the photo itself",
        ),
    ]:
        found, err = picture(*how)
        np.testing.assert_array_equal(found, expected)
        assert said in err and err.count("\n") == (said != "")


@pytest.mark.parametrize(
    ("command", "how", "message"),
    [
        ("edit", ["--output={out}/picture.jpg"], "picture.jpg must end in .png: a lossy format would change"),
        ("extrapolate", ["--output={out}/none/picture.png"], "choose a file in a folder that exists"),
        ("edit", ["--label={files}/layout.png"], "the edited label map 128x64: give a map of equal size"),
        ("edit", ["--margin=-1"], "--margin: -1 is negative"),
        ("edit", ["--workdir=missing"], "missing holds no trained model"),
        ("extrapolate", ["--at=4"], "--at: invalid TOP,LEFT value: '4'"),
        ("extrapolate", ["--at=30,0"], "a photo of 64x40 pixels at 30,0 (top, left) does not lie in"),
        ("extrapolate", ["--photo_label={files}/layout.png"], "128x64"),
        ("extrapolate", ["--label={files}/photo.png"], "is not in the palette"),
    ],
)
def test_bad_input_is_one_line(command, how, message, arguments, files, tmp_path, capsys):
    how = [item.format(files=files, out=tmp_path) for item in how]
    assert cli.main([*arguments[command], f"--output={tmp_path}/picture.png", *how]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1].startswith("mscaflax: error: ") and message in err, err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["edit", "extrapolate"])
def test_the_model_that_ships_is_the_default(command, arguments, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr("mscaflax.apps.synthesizer.pretrained_folder", lambda: tiny_run)
    given = [item for item in arguments[command] if not item.startswith("--workdir")]
    assert cli.main([*given, f"--output={tmp_path}/default.png"]) == 0
    assert cli.main([*arguments[command], f"--output={tmp_path}/named.png"]) == 0
    assert (tmp_path / "default.png").read_bytes() == (tmp_path / "named.png").read_bytes()
