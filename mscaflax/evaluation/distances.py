"""How far the outputs are from real images as a whole: Fréchet distance and KID, by feature extractor.

`frechet.py` defines both. Distances depend on the number of images: compare those of equal n alone.
Shapes: n images, h, w, d features.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mscaflax.data.pixels import to_float
from mscaflax.evaluation.batches import Advance, Batches, ignore_progress
from mscaflax.evaluation.frechet import Moments, frechet_distance, kernel_distance, mean_relu5_3
from mscaflax.nets.vgg import Params

# uint8 [b, h, w, 3] to float [b, d].
Extractor = Callable[[np.ndarray], np.ndarray]


def vgg_extractor(vgg: Params, batches: Batches) -> Extractor:
    """The features of `frechet.vgg_features`, computed on the devices of `batches`."""
    program = batches.program(mean_relu5_3, vgg)
    return lambda images: np.asarray(program(to_float(images)))


def distances(
    references: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    extractors: Mapping[str, Extractor],
    *,
    batches: Batches,
    seed: int = 0,
    advance: Advance = ignore_progress,
) -> dict[str, dict[str, Any]]:
    """Fréchet distance and KID of each set of outputs from the references.

    Args:
      references: uint8 [n, h, w, 3], n at least 2.
      outputs: by kind: uint8 [n, h, w, 3].
      extractors: by name: functions of batches of the size of `batches`.
      batches: in which the extractors are called.
      seed: of the subsets that give KID's standard error.
      advance: called with the number of images after each batch, n + n · kinds per extractor in all.

    Returns:
      By kind and extractor: {"n", "features" (d), "frechet", "kid", "kid_error" (None below four images),
      "warning" (None, or what to know before quoting the number)}, distances to six decimals.
    """
    found: dict[str, dict[str, Any]] = {kind: {} for kind in outputs}
    for name, extract in extractors.items():
        real = batches.map(extract, references, advance=advance)
        moments = Moments.of(real)
        for kind, images in outputs.items():
            features = batches.map(extract, images, advance=advance)
            frechet = frechet_distance(Moments.of(features), moments)
            kernel = kernel_distance(features, real, seed=seed)
            found[kind][name] = {
                "n": len(images),
                "features": frechet.features,
                "frechet": round(frechet.value, 6),
                "kid": round(kernel.value, 6),
                "kid_error": None if kernel.error is None else round(kernel.error, 6),
                "warning": frechet.warning,
            }
    return found
