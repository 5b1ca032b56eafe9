"""Style relevance and semantic consistency of many outputs: `style.py` defines them, here they are walked.

Neither asks for a reference under the exemplar's style, so both are defined for every kind of exemplar.
Shapes: n images, h, w, C classes.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from mscaflax.data.pixels import to_float
from mscaflax.evaluation.batches import Advance, Batches, ignore_progress
from mscaflax.evaluation.style import StyleReference, class_means, consistency, style_moments
from mscaflax.nets.vgg import Params

# Of VGG-16: smaller images leave nothing after the last pooling.
MIN_SIZE = 16


def style_relevances(
    vgg: Params,
    patches: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    exemplars: Mapping[str, np.ndarray],
    *,
    batches: Batches,
    advance: Advance = ignore_progress,
) -> dict[str, np.ndarray]:
    """Style relevance of outputs to their exemplars, and of the real targets to the `cross` exemplars.

    Args:
      vgg: of `mscaflax.nets.vgg.load_vgg16`.
      patches: uint8 [2n, h, w, 3], the real images that styles are centred by, the n targets first.
      outputs: by kind: uint8 [n, h, w, 3].
      exemplars: by kind, at least those of `outputs` and `cross`: int [n], indices into `patches`.
      batches: of the network.
      advance: called with the number of images after each batch, 2n + n · kinds in all.

    Returns:
      By kind, and `real`: float64 [n] in [-1, 1].
    """
    program = batches.program(style_moments, vgg)

    def styles(images):
        return batches.map(lambda batch: program(to_float(batch)), images, advance=advance)

    real = styles(patches)
    reference = StyleReference.of(real)
    found = {
        kind: reference.relevance(styles(images), real[exemplars[kind]]) for kind, images in outputs.items()
    }
    n = len(patches) // 2
    return found | {"real": reference.relevance(real[:n], real[exemplars["cross"]])}


def semantic_consistencies(
    vgg: Params,
    references: np.ndarray,
    labels: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    num_classes: int,
    *,
    batches: Batches,
    advance: Advance = ignore_progress,
) -> dict[str, np.ndarray]:
    """Semantic consistency of outputs with the real images of their label maps.

    Args:
      vgg: of `mscaflax.nets.vgg.load_vgg16`.
      references: uint8 [n, h, w, 3].
      labels: int [n, h, w] in 0..C, of the references and of all outputs.
      outputs: by kind: uint8 [n, h, w, 3].
      num_classes: C.
      batches: of the network.
      advance: called with the number of images after each batch, n + n · kinds in all.

    Returns:
      By kind: float64 [n] in [0, 1], NaN where all pixels are unlabelled.
    """
    program = batches.program(partial(class_means, num_classes=num_classes), vgg)
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in outputs}
    for (label, reference, *images), real in batches.walk(labels, references, *outputs.values()):
        expected = program(to_float(reference), label)
        advance(real)
        for kind, image in zip(outputs, images, strict=True):
            score = consistency(program(to_float(image), label), expected, label, num_classes)
            found[kind].append(score[:real])
            advance(real)
    return {kind: np.concatenate(parts) for kind, parts in found.items()}
