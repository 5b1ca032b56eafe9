import numpy as np
import pytest

from mscaflax.evaluation.label_agreement import PREDICTED, label_agreements
from mscaflax.evaluation.segmentation import confusion_matrix, segmentation_scores

C = 4


def shown(labels):
    """Images whose brightness is their class, and unlabelled pixels like class 0."""
    return np.repeat((labels % C * 60)[..., None], 3, -1).astype(np.uint8)


def read(batch):
    return np.rint((batch[..., 0] + 1) * 127.5 / 60).astype(np.int32)


def test_batches_add_up_and_images_are_floats():
    labels = np.random.default_rng(1).integers(0, C + 1, (PREDICTED + 5, 6, 6))
    images = shown(labels)

    def predict(batch):
        assert batch.dtype == np.float32 and np.abs(batch).max() <= 1 and len(batch) == PREDICTED
        return read(batch)

    done = []
    sets, photos = {"real": images, "dark": images * 0}, np.arange(len(labels))
    found = label_agreements(predict, sets, labels, C, photos, advance=done.append)
    whole = {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert found["real"] == {"pixel_accuracy": whole, "mean_iou": whole} and sum(done) == 2 * len(images)
    accuracy = found["dark"]["pixel_accuracy"]
    assert accuracy["mean"] == pytest.approx((labels == 0).sum() / (labels < C).sum(), abs=1e-6)
    assert accuracy["low"] < accuracy["mean"] < accuracy["high"]


def test_intervals_are_those_of_photos_drawn_anew():
    rng = np.random.default_rng(2)
    labels, photos = rng.integers(0, C + 1, (9, 5, 5)), np.array([4, 4, 0, 0, 1, 2, 2, 2, 3])
    # Class 3 is in one photo, which some draws lack; each photo is wrong in a share of its own.
    labels[(labels == 3) & (photos != 3)[:, None, None]] = 2
    wrong = rng.random(labels.shape) < np.array([0.1, 0.5, 0.2, 0.9, 0.3])[photos, None, None]
    seen = {"cross": labels, "random": np.where(wrong, rng.integers(0, C, labels.shape), labels)}
    found = label_agreements(read, {k: shown(x) for k, x in seen.items()}, labels, C, photos, seed=7)

    def scores(kind, chosen):
        return segmentation_scores(confusion_matrix(labels[chosen], seen[kind][chosen] % C, C))

    everything = np.arange(9)
    drawer, resampled = np.random.default_rng(7), []
    for _ in range(2000):
        chosen = np.concatenate([np.flatnonzero(photos == p) for p in drawer.integers(5, size=5)])
        resampled.append([scores(kind, chosen).mean_iou for kind in ("cross", "random")])
    cross, random = np.transpose(resampled)
    assert found["random"]["mean_iou"] == pytest.approx(
        {"mean": scores("random", everything).mean_iou}
        | dict(zip(("low", "high"), np.quantile(random, [0.025, 0.975]), strict=True)),
        abs=1e-6,
    )
    lost = found["random"]["mean_iou_lost"]
    assert (lost["low"], lost["high"]) == pytest.approx(np.quantile(cross - random, [0.025, 0.975]), abs=1e-6)
    assert lost["mean"] == pytest.approx(1 - scores("random", everything).mean_iou, abs=1e-6)
    assert "mean_iou_lost" not in found["cross"]


def test_one_photo_has_no_interval():
    labels = np.array([[[0, 1]], [[1, 1]]])
    found = label_agreements(read, {"real": shown(labels * 0)}, labels, C, np.array([5, 5]))
    assert found["real"]["pixel_accuracy"] == {"mean": 0.25, "low": None, "high": None}


def test_nothing_labelled():
    images, labels = np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2), C)
    found = label_agreements(read, {"real": images}, labels, C, np.zeros(1, int))
    assert found == {"real": None}
