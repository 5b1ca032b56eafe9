"""Do the outputs show their label maps? A segmenter trained on the real images of the same dataset judges.

With m[i, j] the number of pixels of class i that the segmenter takes for class j, in all images together,
unlabelled pixels left out:

    pixel accuracy = Σ_i m[i, i] / Σ_ij m[i, j]
    mIoU           = mean over the classes i that occur of m[i, i] / (Σ_j m[i, j] + Σ_j m[j, i] - m[i, i])

Which classes occur is a matter of the label maps alone, so it is one mean for all images that are compared.
The segmenter's own scores on the real images stand beside the outputs': no output can be expected to exceed
them. Shapes: n images, h, w, C classes.
"""

from collections.abc import Callable, Mapping

import numpy as np

from mscaflax.data.pixels import to_float
from mscaflax.evaluation.batches import Advance, Batches, ignore_progress

# float32 [b, h, w, 3] in [-1, 1] to int [b, h, w] in 0..C-1.
Predict = Callable[[np.ndarray], np.ndarray]


def confusion(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """The matrix m of the module's definition, int64 [C, C]; matrices of several batches add up.

    Args:
      labels: int [n, h, w] in 0..C, C = unlabelled.
      predicted: int [n, h, w] in 0..C-1.
      num_classes: C.
    """
    counted = labels < num_classes
    bins = labels[counted].astype(np.int64) * num_classes + predicted[counted]
    return np.bincount(bins, minlength=num_classes**2).reshape(num_classes, num_classes)


def agreement(matrix: np.ndarray) -> dict[str, float] | None:
    """{"pixel_accuracy", "miou"} of a confusion matrix, to six decimals; None if it counts no pixel."""
    total, right = matrix.sum(), np.diag(matrix)
    if not total:
        return None
    occurs = matrix.sum(axis=1) > 0
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - right
    return {
        "pixel_accuracy": round(float(right.sum() / total), 6),
        "miou": round(float((right[occurs] / union[occurs]).mean()), 6),
    }


def label_agreements(
    predict: Predict,
    images: Mapping[str, np.ndarray],
    labels: np.ndarray,
    num_classes: int,
    *,
    batches: Batches,
    advance: Advance = ignore_progress,
) -> dict[str, dict[str, float] | None]:
    """Pixel accuracy and mIoU of several sets of images of one set of label maps.

    Args:
      predict: the segmenter; called with full batches.
      images: by kind: uint8 [n, h, w, 3].
      labels: int [n, h, w] in 0..C, of all of them.
      num_classes: C.
      batches: of the segmenter.
      advance: called with the number of images after each batch.

    Returns:
      By kind: as `agreement`.
    """
    found = {}
    for kind, stack in images.items():
        predicted = batches.map(lambda batch: predict(to_float(batch)), stack, advance=advance)
        found[kind] = agreement(confusion(labels, predicted, num_classes))
    return found
