"""Do the outputs show their label maps? A segmenter trained on the real images of the same dataset judges.

Its scores on the real images (`segmentation.py` defines them) stand beside the outputs': no output can be
expected to exceed them. Shapes: n images, h, w, C classes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mscaflax.data.pixels import to_float
from mscaflax.evaluation.batches import Advance, Batches, ignore_progress
from mscaflax.evaluation.metrics import percentile_interval, resamples
from mscaflax.evaluation.segmentation import class_counts, confusion_matrix, scores_of_counts

# float32 [b, h, w, 3] in [-1, 1] to int [b, h, w] in 0..C-1.
Predict = Callable[[np.ndarray], np.ndarray]
# Images that a segmenter is given at once. The size of a batch changes how its products round, and an argmax
# can show that: whatever batches the other networks have, a segmenter has these.
PREDICTED = 16
# The images that others are compared with: what an exemplar of another scene costs in layout.
OWN_PATCH = "cross"


def label_agreements(
    predict: Predict,
    images: Mapping[str, np.ndarray],
    labels: np.ndarray,
    num_classes: int,
    photos: np.ndarray,
    *,
    seed: int = 0,
    advance: Advance = ignore_progress,
) -> dict[str, dict[str, Any] | None]:
    """Pixel accuracy and mean IoU of several sets of images of one set of label maps.

    A mean IoU is no mean over images: its interval comes from resampling photos and summing up the counts of
    their pixels anew. All sets are resampled alike, so that `mean_iou_lost` has the interval of a difference.

    Args:
      predict: the segmenter; called with PREDICTED images, the last batch filled up.
      images: by kind: uint8 [n, h, w, 3].
      labels: int [n, h, w] in 0..C, of all of them.
      num_classes: C.
      photos: int [n], the photo of each label map.
      seed: of the resampling.
      advance: called with the number of images after each batch.

    Returns:
      By kind: pixel_accuracy and mean_iou in [0, 1] and, for outputs beside those of the kind `cross`,
      mean_iou_lost in [-1, 1], by how much it is less than theirs. Each is {"mean": the value, "low",
      "high"}, to six decimals, with a 95% interval, None where all come from one photo. None in place of all
      where nothing is labelled.
    """
    batches = Batches(PREDICTED, jax.local_devices()[:1])
    _, group = np.unique(photos, return_inverse=True)
    counts = {}
    for kind, stack in images.items():
        predicted = batches.map(lambda batch: predict(to_float(batch)), stack, advance=advance)
        counts[kind] = np.zeros((group.max() + 1, 3, num_classes), np.int64)
        for photo, truth, found in zip(group, labels, predicted, strict=True):
            counts[kind][photo] += class_counts(confusion_matrix(truth, found, num_classes))
    if not (np.asarray(labels) < num_classes).any():
        return dict.fromkeys(images)
    values = {kind: _whole_and_resampled(found, seed) for kind, found in counts.items()}
    for kind, row in values.items():
        if OWN_PATCH in values and kind not in ("real", OWN_PATCH):
            row["mean_iou_lost"] = values[OWN_PATCH]["mean_iou"] - row["mean_iou"]
    return {kind: {name: _summary(x) for name, x in row.items()} for kind, row in values.items()}


def _whole_and_resampled(counts, seed):
    """{score: float64 [1 + samples]}: of all photos [p, 3, C], then of resamples, if p > 1."""
    drawn = np.ones((1, len(counts)))
    if len(counts) > 1:
        drawn = np.concatenate([drawn, resamples(len(counts), seed)])
    accuracy, mean_iou, _ = scores_of_counts(np.tensordot(drawn, counts.astype(np.float64), 1))
    return {"pixel_accuracy": accuracy, "mean_iou": mean_iou}


def _summary(values):
    # A resample without a labelled pixel has no score.
    resampled = values[1:][np.isfinite(values[1:])]
    low, high = map(float, percentile_interval(resampled)) if resampled.size else (None, None)
    found = {"mean": float(values[0]), "low": low, "high": high}
    return {key: None if value is None else round(value, 6) for key, value in found.items()}
