import dataclasses
import types

import numpy as np
import pytest

from mscaflax.data import scenes
from mscaflax.data.inputs import SceneItem, scene_example, scenes_inputs
from mscaflax.data.pixels import to_float
from mscaflax.errors import UserError
from mscaflax.evaluation import protocol, reconstruction
from mscaflax.evaluation.batches import Batches
from mscaflax.evaluation.generation import SWAPPED, exemplars
from mscaflax.evaluation.pairlist import freeze_pairs
from mscaflax.evaluation.protocol import Judges
from mscaflax.evaluation.truth import foreign_exemplars, scene_truth, scenes_size

RENDER_SIZE, SIZE, N = (64, 128), 32, 6
CLASSES = len(scenes.CLASS_NAMES)
KINDS = ["cross", "self", "retrieved", "random"]


@pytest.fixture(scope="module")
def source():
    return [scene_example(SceneItem("val", i), size=RENDER_SIZE) for i in range(N)]


@pytest.fixture(scope="module")
def scene_pairs(source):
    return freeze_pairs(
        source,
        dataset="scenes",
        split="val",
        fingerprint="f",
        count=N,
        size=SIZE,
        num_classes=CLASSES,
        seed=0,
    )


@pytest.fixture(scope="module")
def truth(scene_pairs):
    return scene_truth(scene_pairs, exemplars(scene_pairs), RENDER_SIZE)


@pytest.fixture(scope="module")
def judges():
    weights = reconstruction.load_lpips_weights(["alex", "vgg"])
    return Judges(lpips={"alex": weights["alex"]}, vgg=weights["vgg"].convs)


@dataclasses.dataclass
class Oracle:
    """Knows the answer to each request; `spoil` changes it: (answer, label, exemplar_label) to uint8."""

    answers: dict
    spoil: object = None

    @classmethod
    def of(cls, pairs, truth, spoil=None):
        answers, n = {}, len(pairs.names)
        for kind, indices in exemplars(pairs).items():
            known = truth.get(kind, pairs.patches[:n])
            for label, exemplar, answer in zip(pairs.labels[:n], pairs.patches[indices], known, strict=True):
                answers[label.tobytes(), exemplar.tobytes()] = answer
        return cls(answers, spoil)

    def generate(self, label, exemplar, exemplar_label, seed=0):
        out = []
        for a, b, c in zip(label, exemplar, exemplar_label, strict=True):
            answer = self.answers[a.tobytes(), np.rint((b + 1) * 127.5).astype(np.uint8).tobytes()]
            out.append(answer if self.spoil is None else self.spoil(answer, a, c))
        return to_float(np.stack(out))


def run(model, pairs, truth, judges):
    done = []
    found = protocol.evaluate(
        model, pairs, CLASSES, batches=Batches(4), judges=judges, truth=truth, advance=done.append
    )
    assert sum(done) == protocol.steps_of(pairs, judges, truth=True)
    return found


def test_a_scene_in_its_own_style_is_the_target_patch(scene_pairs):
    """The crop and the resampling are those of the pipeline, to the last bit."""
    own = {"random": N + np.arange(N), SWAPPED: N + np.roll(np.arange(N), 1)}
    found = scene_truth(scene_pairs, own, RENDER_SIZE)
    np.testing.assert_array_equal(found["random"], scene_pairs.patches[:N])
    assert (found[SWAPPED] != found["random"]).any(axis=(1, 2, 3)).all()


def test_the_truth_has_the_layout_of_the_target_and_the_style_of_the_exemplar(scene_pairs, truth):
    assert list(truth) == ["retrieved", "random", SWAPPED]
    assert list(foreign_exemplars(scene_pairs, exemplars(scene_pairs))) == list(truth)
    for i, b in enumerate(scene_pairs.triples[:, 1]):
        layout, _ = scenes.named_scene(scene_pairs.names[i])
        _, style = scenes.named_scene(scene_pairs.names[b])
        image, _ = scenes.render(layout, style, RENDER_SIZE)
        top, left, side = scene_pairs.boxes[i, 0]
        square = image[top : top + side, left : left + side]
        # Resampling keeps the mean colour, whatever its kernel.
        np.testing.assert_allclose(truth["random"][i].mean((0, 1)), square.mean((0, 1)), atol=3)


def test_the_truth_is_judged_perfect(scene_pairs, truth, judges):
    found = run(Oracle.of(scene_pairs, truth), scene_pairs, truth, judges)
    assert list(found.truth) == KINDS
    for kind, row in found.truth.items():
        assert row["n"] == N and 0 < row["known_pixels"]["mean"] <= 1
        for prefix in ("", "masked_"):
            assert row[f"{prefix}psnr"]["mean"] > 80
            assert row[f"{prefix}ssim"]["mean"] == pytest.approx(1)
            assert abs(row[f"{prefix}lpips_alex"]["mean"]) < 1e-6, kind
    assert found.truth["self"]["psnr"] == found.metrics["self"]["psnr"]
    assert found.truth["self"]["known_pixels"]["mean"] > 0.95
    assert found.swap["outputs"] == found.swap["truth"] and found.swap["truth"]["all"]["mean"] > 0.8
    # Outputs that are the truth have what the truth has; worse ones do not change that.
    assert found.true_answers == {kind: found.metrics[kind] for kind in ("retrieved", "random")}
    assert 0.5 < found.true_answers["random"]["semantic_consistency"]["mean"] < 0.99
    noise = np.random.default_rng(0)
    noisy = Oracle.of(
        scene_pairs, truth, lambda answer, *_: noise.integers(256, size=answer.shape, dtype="u1")
    )
    worse = run(noisy, scene_pairs, truth, judges)
    assert worse.true_answers == found.true_answers
    for kind, row in worse.true_answers.items():
        for metric in ("style_relevance", "semantic_consistency"):
            assert worse.metrics[kind][metric]["mean"] < row[metric]["mean"]


def test_known_pixels_alone_count_under_the_mask(scene_pairs, truth, judges):
    def spoil_unknown(answer, label, exemplar_label):
        known = reconstruction.known_pixels(label[None], exemplar_label[None], CLASSES)[0]
        return np.where(known[..., None], answer, 255 - answer)

    found = run(Oracle.of(scene_pairs, truth, spoil_unknown), scene_pairs, truth, judges).truth
    for kind in ("retrieved", "random"):
        row = found[kind]
        assert row["known_pixels"]["mean"] < 1
        # Error is nowhere under the mask; SSIM and LPIPS look around each pixel.
        assert row["masked_psnr"]["mean"] > 70 > row["psnr"]["mean"]
        assert row["masked_ssim"]["mean"] > row["ssim"]["mean"]
        assert row["masked_lpips_alex"]["mean"] < row["lpips_alex"]["mean"]

    def spoil_known(answer, label, exemplar_label):
        return 255 - spoil_unknown(answer, label, exemplar_label)

    found = run(Oracle.of(scene_pairs, truth, spoil_known), scene_pairs, truth, judges).truth
    assert found["random"]["masked_psnr"]["mean"] < found["random"]["psnr"]["mean"]


def test_only_scenes_of_this_renderer_have_a_truth(source):
    def dataset(name, fingerprint):
        return types.SimpleNamespace(name=name, splits={"val": N}, fingerprint=fingerprint)

    drawn = scenes_inputs("small", {"val": N}, RENDER_SIZE).fingerprint
    assert scenes_size(dataset("small", drawn), source) == RENDER_SIZE
    assert scenes_size(dataset("photos", "other"), source) is None
    with pytest.raises(UserError, match="another version of mscaflax.*mscaflax prepare --name=scenes"):
        scenes_size(dataset("scenes", "other"), source)


def test_names_of_scenes():
    for split, index in (("val", 3), ("train", 3999)):
        layout, style = scenes.scene(split, index)
        assert scenes.named_scene(scenes.scene_name(split, index)) == (layout, style)
    for name in ("val_3", "val", "photo_00001", "val_00200", "val_-0001"):
        with pytest.raises(UserError):
            scenes.named_scene(name)
