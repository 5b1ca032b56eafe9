"""Full-reference metrics: outputs against the one image that they should be.

Everything is measured image by image on 8-bit levels. Shapes: n images, h, w.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from mscaflax.data.pixels import to_float
from mscaflax.evaluation import lpips as lpips_module
from mscaflax.evaluation.batches import Advance, Batches, ignore_progress
from mscaflax.evaluation.metrics import SSIM_WINDOW, inside, masked_mean, psnr, ssim_map

# A class occurs in an exemplar if it covers at least this share of it.
MIN_EXEMPLAR_SHARE = 0.01

_unit_taps = jax.jit(lpips_module.unit_taps)
_distance = jax.jit(lpips_module.taps_distance)
_distance_map = jax.jit(lpips_module.taps_distance_map, static_argnames="size")


def load_lpips_weights(nets: Sequence[str] = lpips_module.NETS) -> dict[str, lpips_module.LpipsParams]:
    """LPIPS parameters by network."""
    return {net: lpips_module.load_lpips(net) for net in nets}


def usable_nets(weights: Mapping[str, Any], size: int) -> list[str]:
    """Those networks of `weights` that can compare images whose shorter side is `size`."""
    return [net for net in weights if size >= lpips_module.min_size(net)]


def known_pixels(labels: np.ndarray, exemplar_labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The pixels whose class occurs in the exemplar, so that it can tell how they look.

    Args:
      labels, exemplar_labels: int [n, h, w] in 0..C, C = unlabelled, which is in no exemplar.
      num_classes: C.

    Returns:
      bool [n, h, w].
    """
    n, pixels = len(labels), exemplar_labels[0].size
    bins = exemplar_labels.reshape(n, -1) + np.arange(n)[:, None] * (num_classes + 1)
    count = np.bincount(bins.ravel(), minlength=n * (num_classes + 1)).reshape(n, num_classes + 1)
    occurs = count >= MIN_EXEMPLAR_SHARE * pixels
    occurs[:, num_classes] = False
    return np.take_along_axis(occurs, labels.reshape(n, -1), axis=1).reshape(labels.shape)


def full_reference(
    references: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    *,
    batches: Batches,
    weights: Mapping[str, lpips_module.LpipsParams],
    masks: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    advance: Advance = ignore_progress,
) -> dict[str, dict[str, np.ndarray]]:
    """Compares several sets of outputs with one set of references, which pass each network once.

    Args:
      references: uint8 [n, h, w, 3].
      outputs: by name: uint8 [n, h, w, 3].
      batches: of the networks.
      weights: of `load_lpips_weights`.
      masks: by a word, by the outputs' names: bool [n, h, w]; adds the metrics over these pixels alone.
      advance: called with the number of outputs after each batch.

    Returns:
      By name: float64 [n] each: psnr (dB), ssim, and lpips_vgg, lpips_alex for the given weights; for each
      word of the masks also WORD_ and each of these names, the averages of the spatial maps, NaN where a mask
      is empty.
      Metrics that are not defined for images so small are left out.
    """
    size = references.shape[1:3]
    programs = {}
    for net in usable_nets(weights, min(size)):
        params = batches.replicate(weights[net])
        functions = _unit_taps, _distance, partial(_distance_map, size=size)
        programs[net] = [batches.program(function, params) for function in functions]
    found = {name: defaultdict(list) for name in outputs}
    keys = [(word, name) for word in masks or {} for name in outputs]
    shown = [masks[word][name] for word, name in keys]
    for (reference, *rest), real in batches.walk(references, *outputs.values(), *shown):
        images = dict(zip(outputs, rest, strict=False))
        part = dict(zip(keys, rest[len(outputs) :], strict=True))

        def add(name, metric, values, count=real):
            found[name][metric].append(np.asarray(values, np.float64)[:count])

        for name, image in images.items():
            add(name, "psnr", psnr(reference, image))
            for word in masks or {}:
                add(name, f"{word}_psnr", psnr(reference, image, part[word, name]))
            if min(size) < SSIM_WINDOW:
                continue
            similarity = ssim_map(reference, image)
            add(name, "ssim", similarity.mean(axis=(1, 2)))
            for word in masks or {}:
                add(name, f"{word}_ssim", masked_mean(similarity, inside(part[word, name])))
        for net, (taps, distance, distance_map) in programs.items():
            expected = taps(to_float(reference))
            for name, image in images.items():
                own = taps(to_float(image))
                add(name, f"lpips_{net}", distance(expected, own))
                if masks:
                    values = np.asarray(distance_map(expected, own))
                for word in masks or {}:
                    add(name, f"{word}_lpips_{net}", masked_mean(values, part[word, name]))
                advance(real)
    return {
        name: {metric: np.concatenate(parts) for metric, parts in scores.items()}
        for name, scores in found.items()
    }
