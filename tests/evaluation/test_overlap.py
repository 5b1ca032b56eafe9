import dataclasses

import numpy as np
import pytest

from mscaflax.data import scenes
from mscaflax.data.inputs import SceneItem, scene_example
from mscaflax.data.pixels import to_float
from mscaflax.evaluation import overlap, reconstruction, truth
from mscaflax.evaluation.batches import Batches
from mscaflax.evaluation.pairlist import freeze_pairs

RENDER_SIZE, SIZE, N = (64, 128), 32, 12
CLASSES = len(scenes.CLASS_NAMES)


@pytest.fixture(scope="module")
def scene_pairs():
    return freeze_pairs(
        [scene_example(SceneItem("val", i), size=RENDER_SIZE) for i in range(N)],
        dataset="scenes",
        split="val",
        fingerprint="f",
        count=N,
        size=SIZE,
        num_classes=CLASSES,
        seed=0,
    )


@pytest.fixture(scope="module")
def bins(scene_pairs):
    return overlap.draw_bins(scene_pairs, CLASSES, 5, seed=0)


@dataclasses.dataclass
class Grey:
    """Answers by one grey, but the known pixels by the truth."""

    answers: dict

    def generate(self, label, exemplar, exemplar_label, seed=0):
        known = reconstruction.known_pixels(label, exemplar_label, CLASSES)
        found = []
        for target, style, mask in zip(label, exemplar, known, strict=True):
            image = to_float(self.answers[target.tobytes(), style.tobytes()])
            found.append(np.where(mask[..., None], image, 0))
        return np.stack(found)


def test_overlap_counts_the_classes_that_occur():
    labels = np.zeros((2, 10, 10), int)
    labels[0, :3] = 1  # 70% of class 0, 30% of class 1
    labels[1, :, :] = 3  # unlabelled
    exemplars = np.zeros((3, 10, 20), int)
    exemplars[1] = 2
    exemplars[1, 0, :2] = 1  # 1%, just enough
    exemplars[2] = 2
    exemplars[2, 0, 0] = 0  # 0.5%, too little
    found = overlap.class_overlap(labels, exemplars, 3)
    np.testing.assert_allclose(found, [[0.7, 0.3, 0.0], [np.nan] * 3])


def test_bins_hold_pairs_of_their_overlap_from_different_scenes(scene_pairs, bins):
    assert list(bins) == list(overlap.BINS)
    for (name, chosen), low, high in zip(bins.items(), (0, 1 / 3, 2 / 3), (1 / 3, 2 / 3, 1.01), strict=True):
        assert 1 <= len(chosen) <= 5 and len(np.unique(chosen, axis=0)) == len(chosen), name
        for target, style in chosen:
            assert scene_pairs.photos[target] != scene_pairs.photos[style]
            label, exemplar = scene_pairs.labels[target], scene_pairs.labels[N + style]
            occurs = [c for c in range(CLASSES) if (exemplar == c).mean() >= 0.01]
            assert low <= np.isin(label, occurs).mean() < high


def test_bins_are_drawn_by_the_seed(scene_pairs, bins):
    again, other = (overlap.draw_bins(scene_pairs, CLASSES, 5, seed=seed) for seed in (0, 1))
    assert all((again[name] == bins[name]).all() for name in bins)
    assert any((other[name] != bins[name]).any() for name in bins)


def test_known_and_missing_pixels_are_told_apart(scene_pairs, bins):
    answers = {}
    for chosen in bins.values():
        drawn = truth.draw_truth(scene_pairs, *chosen.T, RENDER_SIZE)
        for (target, style), image in zip(chosen, drawn, strict=True):
            exemplar = to_float(scene_pairs.patches[N + style])
            answers[scene_pairs.labels[target].tobytes(), exemplar.tobytes()] = image
    weights = reconstruction.load_lpips_weights(["alex"])
    done = []
    found, values_of = overlap.by_overlap(
        Grey(answers), scene_pairs, bins, CLASSES,
        size=RENDER_SIZE, batches=Batches(4), weights=weights, advance=done.append,
    )  # fmt: skip
    assert sum(done) == overlap.steps_of(bins, weights)
    shares = []
    for name, values in found.items():
        assert values["n"] == len(bins[name]) == len(values_of[name]["psnr"])
        assert values["psnr"]["mean"] == pytest.approx(values_of[name]["psnr"].mean(), abs=1e-6)
        shares.append(values["overlap"]["mean"])
        if values["masked_psnr"] is not None:
            # As good as equal: the error counts as one level in one value of the image.
            assert values["masked_psnr"]["mean"] > 60
        if values["missing_psnr"] is not None:
            assert values["missing_psnr"]["mean"] < 30
    assert shares == sorted(shares) and shares[0] < 1 / 3 and shares[2] > 2 / 3


def test_a_list_without_pairs_of_a_bin_says_so(scene_pairs):
    alike = dataclasses.replace(scene_pairs, labels=np.zeros_like(scene_pairs.labels))
    bins = overlap.draw_bins(alike, CLASSES, 2, seed=0)
    assert [len(chosen) for chosen in bins.values()] == [0, 0, 2]
    empty = {"under a third": bins["under a third"]}
    found = overlap.by_overlap(None, alike, empty, CLASSES, size=RENDER_SIZE, batches=Batches(4), weights={})
    assert found == ({"under a third": {"n": 0}}, {})
