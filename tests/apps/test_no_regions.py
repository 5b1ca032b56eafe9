"""A model whose alignment has no regions, and that leaves a scale out: explained, blended, in the studio."""

import base64
import io
import json

import jax
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from mscaflax import Synthesizer, UserError
from mscaflax.apps.blend import Blender
from mscaflax.apps.explain import explain
from mscaflax.apps.inputs import Exemplar, Layout
from mscaflax.apps.studio.server import build_app
from mscaflax.apps.studio.service import Studio
from mscaflax.config import load_config
from mscaflax.data import scenes
from mscaflax.data.classes import ClassTable
from mscaflax.nets.vgg import load_vgg16
from mscaflax.training.experiment import build_experiment
from mscaflax.training.model import Model
from mscaflax.training.state import init_state, neutral_statistics

SIDE = 32


@pytest.fixture(scope="module")
def model():
    """Global averages, at all scales but the finest; the parameters are drawn, not trained."""
    config = load_config(["--config=tiny", "--config.model.alignment=gap", "--config.model.modulation=spade"])
    config.model.attention_scales = (False, True, True, True, True)
    classes = ClassTable(scenes.CLASS_NAMES, scenes.PALETTE)
    experiment = build_experiment(config, classes.num_classes)
    state = jax.eval_shape(lambda: init_state(experiment, neutral_statistics()))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.15, x.shape).astype(x.dtype), state.ema)
    return Model(config, classes, 0, experiment.network, params, neutral_statistics(), load_vgg16())


@pytest.fixture(scope="module")
def parts():
    """(photo, label map) of three scenes, SIDE pixels a side."""
    found = (scenes.render(*scenes.scene("test", index), (SIDE, 2 * SIDE)) for index in (0, 1, 7))
    return [(image[:, :SIDE], label[:, :SIDE].astype(np.int32)) for image, label in found]


@pytest.fixture(scope="module")
def layout(parts):
    return Layout(parts[0][1], None, (SIDE, SIDE))


@pytest.fixture(scope="module")
def exemplars(parts):
    return [Exemplar(*part) for part in parts[1:]]


@pytest.fixture(scope="module")
def blender(model, layout, exemplars):
    return Blender(model, layout, exemplars, seed=3)


def test_there_is_nothing_to_explain(model, layout, exemplars):
    with pytest.raises(UserError, match="the alignment 'gap' of this model has no regions to show: it takes"):
        explain(model, layout, exemplars[0])


def test_one_style_for_the_whole_picture(blender):
    one, other, mixed = (blender.mix(weights) for weights in ((1, 0), (0, 1), (0.25, 0.75)))
    assert (one != other).mean() > 0.2 and (mixed != one).any() and (mixed != other).any()
    everywhere = np.broadcast_to(np.array([0.25, 0.75]).reshape(2, 1, 1), (2, SIDE, SIDE))
    assert np.abs(blender.mix_places(everywhere).astype(int) - mixed).max() <= 1


def test_another_style_at_every_place(blender, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Model,
        "decode",
        lambda self, alignments, *rest: seen.append(alignments) or np.zeros((1, SIDE, SIDE, 3)),
    )
    half = np.zeros((2, SIDE, SIDE))
    half[0, :, : SIDE // 2] = half[1, :, SIDE // 2 :] = 1
    blender.mix_places(half)
    (mixed,) = seen
    assert mixed[0] is None
    for scale in range(1, 5):
        one, other = (found[scale].features for found in blender.alignments)
        border = SIDE // 2 >> scale
        assert mixed[scale].values is None and (one != other).any()
        np.testing.assert_array_equal(mixed[scale].features[:, :, :border], one[:, :, :border])
        np.testing.assert_array_equal(mixed[scale].features[:, :, border:], other[:, :, border:])


def test_the_studio_gives_the_picture_without_regions(model, blender, layout, exemplars):
    def png(photo):
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, "PNG")
        return buffer.getvalue()

    size = {"width": SIDE, "height": SIDE}
    request = {"layout": size, "exemplars": [size] * 2, "weights": [0.25, 0.75], "seed": 3}
    form = {"request": (None, json.dumps(request)), "layout": layout.label.astype(np.uint8).tobytes()}
    for index, exemplar in enumerate(exemplars):
        form[f"photo{index}"] = png(exemplar.photo)
        form[f"label{index}"] = exemplar.label.astype(np.uint8).tobytes()
    app = build_app(Studio(Synthesizer(model)), warm=False)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        answer = client.post("/api/picture", files=form)
    assert answer.status_code == 200, answer.text
    assert answer.json()["regions"] is None
    picture = Image.open(io.BytesIO(base64.b64decode(answer.json()["picture"])))
    np.testing.assert_array_equal(np.asarray(picture), blender.mix([0.25, 0.75]))
