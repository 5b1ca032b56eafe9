"""Photos that come without a label map: who guesses it, who says so, and who needs one all the same."""

import logging
import types

import numpy as np
import pytest
from PIL import Image

from mscaflax import Synthesizer, UserError, cli
from mscaflax.config import load_config
from mscaflax.data import scenes
from mscaflax.data.classes import ClassTable
from mscaflax.data.images import read_label_map
from mscaflax.nets.msca import Alignment
from mscaflax.training.experiment import build_network
from mscaflax.training.model import Model

LINE = "the segmenter guesses the label map of photos that come without: on validation patches, its mean IoU"
AT = (4, 20)  # the photo in the layout


@pytest.fixture(scope="module")
def scene():
    """A photo of 80x48 pixels, its label map, and the layout of 128x64 in which it lies at AT."""
    image, layout = scenes.render(*scenes.scene("test", 0), (64, 128))
    box = slice(AT[0], AT[0] + 48), slice(AT[1], AT[1] + 80)
    return image[box], layout[box], layout


@pytest.fixture
def synthesizer(monkeypatch):
    """Without parameters: what goes into the network is kept in `seen`, and gray comes out."""
    classes = ClassTable(scenes.CLASS_NAMES, scenes.PALETTE)
    config = load_config(["--config=tiny"])
    model = Model(config, classes, 0, build_network(config.model, classes.num_classes), None, None, None)
    seen = []

    def generate(self, label, exemplar, exemplar_label, *rest):
        seen.append((label[0], exemplar_label[0]))
        return np.zeros((*label.shape, 3), np.float32)

    def align(self, *given):
        generate(self, *given)
        return (Alignment(np.zeros((*given[0].shape, 1), np.float32)),)

    def decode(self, alignments, label, *rest):
        return np.zeros((*label.shape, 3), np.float32)

    for function in (generate, align, decode):
        monkeypatch.setattr(Model, function.__name__, function)
    segmenter = types.SimpleNamespace(
        classes=classes,
        scores={"mean_iou": 0.456},
        predict=lambda images: np.where(images[..., 2] > 0, 3, 5).astype(np.int32),
    )
    monkeypatch.setattr("mscaflax.training.model.load_model", lambda *_: model)
    monkeypatch.setattr("mscaflax.training.segmenter.load_segmenter", lambda *_, **__: segmenter)
    found = Synthesizer.from_workdir("run")
    found.seen = seen
    return found


@pytest.fixture
def files(scene, tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    for name, pixels in zip(("photo", "label", "layout"), scene, strict=True):
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def test_a_call_says_once_that_it_guesses(synthesizer, scene, caplog):
    photo, label, layout = scene
    synthesizer(layout, photo, label)
    assert caplog.records == []
    for _ in range(2):
        synthesizer(layout, photo)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.getMessage() == f"{LINE} is 0.46"
    assert set(np.unique(synthesizer.seen[-1][1])) == {3, 5}


def test_a_blender_says_that_it_guesses(synthesizer, scene, caplog):
    photo, label, layout = scene
    synthesizer.blender(layout, [(photo, label), (photo, label)])
    assert caplog.records == []
    synthesizer.blender(layout, [(photo, label), photo])
    assert [record.getMessage() for record in caplog.records] == [f"{LINE} is 0.46"]
    np.testing.assert_array_equal(synthesizer.seen[-2][1], synthesizer.seen[0][1])
    assert set(np.unique(synthesizer.seen[-1][1])) == {3, 5}


@pytest.mark.parametrize(
    ("exemplars", "message"),
    [([], "at least one exemplar"), ([(np.zeros((32, 32, 3), np.uint8),)], "a photo, or a tuple")],
)
def test_exemplars_that_no_blender_takes(exemplars, message, synthesizer, scene):
    with pytest.raises(UserError, match=message):
        synthesizer.blender(scene[2], exemplars)


def test_an_explanation_says_that_it_guesses(synthesizer, scene, caplog, monkeypatch):
    monkeypatch.setattr("mscaflax.apps.explain.explain", lambda model, layout, exemplar, *rest: exemplar)
    assert not synthesizer.explain(scene[2], *scene[:2]).guessed and caplog.records == []
    assert synthesizer.explain(scene[2], scene[0]).guessed
    assert [record.getMessage() for record in caplog.records] == [f"{LINE} is 0.46"]


def test_a_photo_is_continued_with_a_guess(synthesizer, scene, caplog):
    photo, _, layout = scene
    found = synthesizer.extrapolate(photo, None, layout, at=AT)
    guess = synthesizer.segment(photo)
    assert set(np.unique(guess)) == {3, 5}
    np.testing.assert_array_equal(found, synthesizer.extrapolate(photo, guess, layout, at=AT))
    (one, other) = synthesizer.seen
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])
    assert [record.getMessage() for record in caplog.records] == [f"{LINE} is 0.46"]


def test_what_a_guess_cannot_stand_for(synthesizer, scene, caplog):
    with pytest.raises(UserError, match="the photo's place in the layout cannot be found: say .* --at=TOP,"):
        synthesizer.extrapolate(scene[0], None, scene[2])
    with pytest.raises(
        UserError, match=r"needs the photo's own label map \(--photo_label\), .*`mscaflax seg"
    ):
        synthesizer.edit(scene[0], None, scene[1])
    assert synthesizer.seen == [] and caplog.records == []


def test_the_command_line_says_it_on_stderr_alone(synthesizer, files, tmp_path, capsys, caplog):
    out = tmp_path / "out.png"
    for line in (
        ["synthesize", f"--exemplar={files}/photo.png"],
        ["extrapolate", f"--photo={files}/photo.png", f"--at={AT[0]},{AT[1]}"],
    ):
        assert cli.main([*line, "--workdir=run", f"--label={files}/layout.png", f"--output={out}"]) == 0
        assert capsys.readouterr() == (f"{out}\n", f"{LINE} is 0.46\n")
    assert caplog.records == [] and len(synthesizer.seen) == 2


def test_a_guess_as_a_file(synthesizer, scene, files, tmp_path, capsys):
    out = tmp_path / "guess.png"
    assert cli.main(["segment", "--workdir=run", f"--photo={files}/photo.png", f"--output={out}"]) == 0
    assert capsys.readouterr() == (f"{out}\n", f"{LINE} is 0.46\n")
    guess = read_label_map(out, synthesizer.classes)
    np.testing.assert_array_equal(guess, synthesizer.segment(scene[0]))
    colours = np.asarray(Image.open(out))
    np.testing.assert_array_equal(colours, np.array(scenes.PALETTE)[guess])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            ["extrapolate", "--photo={files}/photo.png", "--label={files}/layout.png"],
            "cannot be found: say where",
        ),
        (["edit", "--photo={files}/photo.png", "--label={files}/label.png"], "`mscaflax segment`, or"),
        (["segment", "--photo={files}/none.png"], "none.png: cannot be read"),
        (["segment", "--photo={files}/photo.png", "--output=map.jpg"], "must end in .png"),
    ],
)
def test_bad_input_is_one_line(line, message, synthesizer, files, tmp_path, capsys):
    line = [item.format(files=files) for item in line]
    assert cli.main([line[0], f"--output={tmp_path}/out.png", *line[1:]]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err, err
    assert list(tmp_path.iterdir()) == [files]
