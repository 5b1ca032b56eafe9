"""Scores of label maps, from confusion matrices in numpy: pixel accuracy and intersection over union.

Shapes: C classes; label maps hold 0..C, C = unlabelled. Pixels whose truth is unlabelled do not count
anywhere, so what was predicted there does not matter.

The intersection over union of a class is TP / (TP + FP + FN) over all pixels together, as in PASCAL VOC
(Everingham et al., IJCV 111, 2015) and Cityscapes; its mean runs over the classes that occur in the truth,
so that it is one mean for all predictions of one truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of a confusion matrix.

    Attributes:
      pixel_accuracy: share of the labelled pixels whose class is right, in [0, 1].
      mean_iou: mean of the classes' intersection over union, of those that occur in the truth.
      class_iou: float64 [C]; NaN for a class that does not occur in the truth.
    """

    pixel_accuracy: float
    mean_iou: float
    class_iou: np.ndarray

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """A dict of plain JSON values; class_iou by class name, None for a class that does not occur."""
        class_iou = {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(names, self.class_iou, strict=True)
        }
        return {
            "pixel_accuracy": self.pixel_accuracy,
            "mean_iou": self.mean_iou,
            "class_iou": class_iou,
        }


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts how often each class was taken for which.

    Matrices of parts of a dataset add up to the matrix of the whole.

    Args:
      truth: integers of any shape in 0..C; pixels with C do not count.
      predicted: integers of the same shape, in 0..C-1 where they count.
      num_classes: C.

    Returns:
      int64 [C, C]: rows are the true classes, columns the predicted ones.

    Raises:
      ValueError: shapes that differ, no integers, or ids out of range.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        raise ValueError(f"label maps must have one shape, got {truth.shape} and {predicted.shape}")
    if not all(np.issubdtype(maps.dtype, np.integer) for maps in (truth, predicted)):
        raise ValueError(f"label maps must hold integers, got {truth.dtype} and {predicted.dtype}")
    counted = truth != num_classes
    truth, predicted = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    for ids in (truth, predicted):
        if ids.size and not 0 <= ids.min() <= ids.max() < num_classes:
            raise ValueError(f"class ids {ids.min()}..{ids.max()} do not lie in 0..{num_classes - 1}")
    counts = np.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    return counts.astype(np.int64).reshape(num_classes, num_classes)


def class_counts(confusion: np.ndarray) -> np.ndarray:
    """What the scores need of a confusion matrix, which is far less where classes are many.

    Args:
      confusion: integers [C, C], of `confusion_matrix`.

    Returns:
      int64 [3, C]: by class, the pixels that are right, that are of it, and that were taken for it. Counts of
      parts of a dataset add up to those of the whole.
    """
    confusion = np.asarray(confusion)
    return np.stack([np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)])


def scores_of_counts(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of many sets of pixels at once.

    Args:
      counts: [..., 3, C], of `class_counts`, or sums of such.

    Returns:
      float64 [...], pixel accuracy; float64 [...], mean intersection over union; float64 [..., C], that of
      each class, NaN where it does not occur in the truth. The first two are NaN where nothing was counted.
    """
    right, true, predicted = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    occurs = true > 0
    class_iou = np.divide(right, true + predicted - right, out=np.full(right.shape, np.nan), where=occurs)

    def mean(sums, sizes):
        return np.divide(sums, sizes, out=np.full(sizes.shape, np.nan), where=sizes > 0)

    accuracy = mean(right.sum(-1), true.sum(-1))
    return accuracy, mean(np.nansum(class_iou, -1), occurs.sum(-1)), class_iou


def segmentation_scores(confusion: np.ndarray) -> SegmentationScores:
    """The scores of a confusion matrix.

    Args:
      confusion: integers [C, C], of `confusion_matrix`, or a sum of such.

    Raises:
      ValueError: no pixel was counted: there is nothing to say.
    """
    accuracy, mean_iou, class_iou = scores_of_counts(class_counts(confusion))
    if np.isnan(accuracy):
        raise ValueError("no labelled pixel was counted")
    return SegmentationScores(float(accuracy), float(mean_iou), class_iou)
