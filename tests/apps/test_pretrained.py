"""The model that ships: whole, small, without pickles, and good at what it is for."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mscaflax import Synthesizer, UserError
from mscaflax.apps.pretrained import pretrained_folder, shipped_models
from mscaflax.data import scenes
from mscaflax.evaluation.metrics import psnr

SIZE = (64, 128)


@pytest.fixture(scope="module")
def synthesizer():
    return Synthesizer.pretrained("scenes64")


@pytest.fixture(scope="module")
def pictures(synthesizer):
    """Three layouts in the styles of three scenes, none seen in training: scenes, outputs, truths.

    Outputs and truths are uint8 [3, 3, h, w, 3], layout first.
    """
    layouts, styles = zip(*(scenes.scene("test", index) for index in range(3)), strict=True)
    rendered = [scenes.render(layout, style, SIZE) for layout, style in zip(layouts, styles, strict=True)]
    outputs = [[synthesizer(label, photo, own) for photo, own in rendered] for _, label in rendered]
    truths = [[scenes.render(layout, style, SIZE)[0] for style in styles] for layout in layouts]
    return rendered, np.array(outputs), np.array(truths)


def test_what_ships_is_small_and_holds_no_pickle():
    assert shipped_models() == ["scenes64"]
    files = [file for file in pretrained_folder().rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".json", ".safetensors", ".md"}
    assert sum(file.stat().st_size for file in files) < 20e6
    assert "/" not in json.loads((pretrained_folder() / "config.json").read_text())["data"]["data_dir"]


def test_the_card_tells_the_step_and_the_command(synthesizer):
    card = (pretrained_folder() / "README.md").read_text()
    assert f"{synthesizer.model.step:,} steps" in card
    assert "mscaflax train --config=scenes64" in card and "mscaflax evaluate" in card


def test_outputs_are_near_the_truth_and_follow_the_style(pictures):
    _, outputs, truths = pictures
    near = np.array(
        [[psnr(outputs[i], np.repeat(truths[i, j : j + 1], 3, 0)) for j in range(3)] for i in range(3)]
    )
    assert near.shape == (3, 3, 3)  # layout, truth's style, output's style
    right = near[:, np.arange(3), np.arange(3)]
    assert right.mean() > 19
    # Of all outputs of a layout, the one in a style is the nearest to the truth in that style.
    assert (near.argmax(axis=2) == np.arange(3)).all()


def test_a_photo_without_label_map(synthesizer, pictures):
    rendered, outputs, truths = pictures
    photo, label = rendered[1]
    guess = synthesizer.segment(photo)
    assert (guess == label).mean() > 0.75
    picture = synthesizer(rendered[0][1], photo)
    assert psnr(picture[None], truths[0, 1][None])[0] > psnr(outputs[0, 1][None], truths[0, 1][None])[0] - 3


@pytest.mark.slow
def test_mixtures_of_one_style_are_the_plain_picture():
    """Bit for bit, with `spade`: there, decoding reads nothing but the features."""
    synthesizer = Synthesizer.pretrained("scenes64")
    assert synthesizer.model.config.model.modulation == "spade"
    side = 2 * synthesizer.model.network.size_multiple
    rendered = [scenes.render(*scenes.scene("test", index), SIZE) for index in range(3)]
    layout = rendered[0][1][-side:, :side]
    exemplars = [(photo[:, :64], label[:, :64]) for photo, label in rendered[1:]]
    plain = [synthesizer(layout, *exemplar, seed=7) for exemplar in exemplars]
    assert (np.abs(plain[0].astype(int) - plain[1]) > 1).mean() > 0.2
    blender = synthesizer.blender(layout, exemplars, seed=7)
    first = np.stack([np.ones((side, side)), np.zeros((side, side))])
    path, classes = blender.path(2), synthesizer.classes.names
    for index in (0, 1):
        for found in (
            blender.mix(np.eye(2)[index]),
            path[index],
            blender.mix_places(first[:: -1 if index else 1]),
            blender.mix_classes(dict.fromkeys(classes, index)),
        ):
            np.testing.assert_array_equal(found, plain[index])
    same = synthesizer.blender(layout, exemplars[:1] * 3, seed=7)
    # Powers of two and their sums, so that nothing is rounded.
    weights = np.array([0.25, 0.25, 0.5])
    np.testing.assert_array_equal(same.mix(weights), plain[0])
    everywhere = weights.reshape(3, 1, 1) * np.ones((3, side, side))
    np.testing.assert_array_equal(same.mix_places(everywhere), plain[0])


def test_an_unknown_name():
    with pytest.raises(UserError, match="no model 'scenes65' ships with mscaflax: it has scenes64"):
        Synthesizer.pretrained("scenes65")


@pytest.mark.slow
def test_the_command_line_needs_no_workdir(pictures, synthesizer, tmp_path):
    rendered, outputs, _ = pictures
    Image.fromarray(rendered[0][1].astype(np.uint8)).save(tmp_path / "layout.png")
    Image.fromarray(rendered[1][0]).save(tmp_path / "photo.png")
    Image.fromarray(rendered[1][1].astype(np.uint8)).save(tmp_path / "photo_label.png")

    def synthesize(*arguments):
        line = [sys.executable, "-m", "mscaflax", "synthesize", "--label=layout.png", "--exemplar=photo.png"]
        done = subprocess.run(
            [*line, "--output=out.png", *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        with Image.open(tmp_path / "out.png") as image:
            return np.asarray(image).astype(int), done.stderr

    picture, said = synthesize("--exemplar_label=photo_label.png")
    assert np.abs(picture - outputs[0, 1]).max() <= 1 and said == ""
    picture, said = synthesize()
    assert np.abs(picture - synthesizer(rendered[0][1], rendered[1][0])).max() <= 1
    assert said.startswith("the segmenter guesses the label map") and "mean IoU is 0." in said
