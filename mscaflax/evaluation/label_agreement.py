"""Do the outputs show their label maps? A segmenter trained on the real images of the same dataset judges.

Its scores on the real images (`segmentation.py` defines them) stand beside the outputs': no output can be
expected to exceed them. Shapes: n images, h, w, C classes.
"""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from mscaflax.data.pixels import to_float
from mscaflax.evaluation.batches import Advance, Batches, ignore_progress
from mscaflax.evaluation.segmentation import confusion_matrix, segmentation_scores

# float32 [b, h, w, 3] in [-1, 1] to int [b, h, w] in 0..C-1.
Predict = Callable[[np.ndarray], np.ndarray]
# Images that a segmenter is given at once. The size of a batch changes how its products round, and an argmax
# can show that: whatever batches the other networks have, a segmenter has these.
PREDICTED = 16


def label_agreements(
    predict: Predict,
    images: Mapping[str, np.ndarray],
    labels: np.ndarray,
    num_classes: int,
    *,
    advance: Advance = ignore_progress,
) -> dict[str, dict[str, float] | None]:
    """Pixel accuracy and mean IoU of several sets of images of one set of label maps.

    Args:
      predict: the segmenter; called with PREDICTED images, the last batch filled up.
      images: by kind: uint8 [n, h, w, 3].
      labels: int [n, h, w] in 0..C, of all of them.
      num_classes: C.
      advance: called with the number of images after each batch.

    Returns:
      By kind: {"pixel_accuracy", "mean_iou"} in [0, 1], to six decimals; None where no pixel is labelled.
    """
    found, batches = {}, Batches(PREDICTED, jax.local_devices()[:1])
    for kind, stack in images.items():
        predicted = batches.map(lambda batch: predict(to_float(batch)), stack, advance=advance)
        matrix = confusion_matrix(labels, predicted, num_classes)
        scores = segmentation_scores(matrix) if matrix.any() else None
        found[kind] = scores and {
            "pixel_accuracy": round(scores.pixel_accuracy, 6),
            "mean_iou": round(scores.mean_iou, 6),
        }
    return found
