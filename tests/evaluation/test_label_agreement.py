import numpy as np
import pytest

from mscaflax.evaluation.label_agreement import PREDICTED, label_agreements

C = 4


def test_batches_add_up_and_images_are_floats():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, C + 1, (PREDICTED + 5, 6, 6))
    images = np.repeat((labels % C * 60)[..., None], 3, -1).astype(np.uint8)

    def predict(batch):
        assert batch.dtype == np.float32 and np.abs(batch).max() <= 1 and len(batch) == PREDICTED
        return np.rint((batch[..., 0] + 1) * 127.5 / 60).astype(np.int32)

    done = []
    found = label_agreements(predict, {"real": images, "dark": images * 0}, labels, C, advance=done.append)
    assert found["real"] == {"pixel_accuracy": 1.0, "mean_iou": 1.0} and sum(done) == 2 * len(images)
    assert found["dark"]["pixel_accuracy"] == pytest.approx(
        (labels == 0).sum() / (labels < C).sum(), abs=1e-6
    )


def test_nothing_labelled():
    images, labels = np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2), C)
    found = label_agreements(lambda batch: np.zeros(batch.shape[:3], int), {"real": images}, labels, C)
    assert found == {"real": None}
