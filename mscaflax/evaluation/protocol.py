"""The evaluation protocol: a frozen list of pairs, every kind of exemplar apart, metrics of 8-bit images.

Kinds of exemplar, each reported by itself:

* `cross`: the other patch of the target's photo (cross reconstruction); the target patch is the reference.
* `self`: the target patch itself (self reconstruction); the target patch is the reference.
* `random`: a patch of another photo, drawn uniformly. It has no reference: against the target photo,
  following the style would be punished. It is judged by the swap test.

Patches and outputs are rounded to 8 bits before anything else happens to them, as if they had been saved as
PNG.
Intervals are of 95% and resample photos, since several pairs may come from one; a swap triple counts as its
layout's photo.
Shapes: n pairs, t swap triples, h = w the model's training size, C classes.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from mscaflax.data.classes import ClassTable
from mscaflax.data.grids import Column
from mscaflax.data.pixels import to_float, to_uint8
from mscaflax.errors import UserError
from mscaflax.evaluation import lpips as lpips_module
from mscaflax.evaluation.metrics import bootstrap_interval, psnr, ssim
from mscaflax.evaluation.pairlist import PairList
from mscaflax.evaluation.swap import class_colours, exemplar_distance, most_different, score_swaps

LPIPS_NETS = ("vgg", "alex")
_MIN_SSIM_SIZE = 11
_score_lpips = jax.jit(lpips_module.lpips)


class Synthesizes(Protocol):
    """What the protocol needs of a model."""

    def generate(
        self, label: np.ndarray, exemplar: np.ndarray, exemplar_label: np.ndarray, seed: int = 0
    ) -> np.ndarray:
        """int [b, h, w], float [-1, 1] [b, h, w, 3], int [b, h, w] to float32 [-1, 1] [b, h, w, 3]."""
        ...


def _batches(arrays: Sequence[np.ndarray], batch_size: int):
    """Slices of arrays, the last one padded by repetition to the full size, and how many entries are real."""
    for start in range(0, len(arrays[0]), batch_size):
        parts = [a[start : start + batch_size] for a in arrays]
        real = len(parts[0])
        padding = ((0, batch_size - real),)
        yield [np.pad(p, (*padding, *((0, 0),) * (p.ndim - 1)), mode="edge") for p in parts], real


def synthesize(
    model: Synthesizes,
    pairs: PairList,
    layouts: np.ndarray,
    exemplars: np.ndarray,
    *,
    batch_size: int,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Synthesizes patches under the label maps `layouts` in the style of the patches `exemplars`.

    Args:
      layouts, exemplars: int [k], indices into `pairs.patches`.
      batch_size: of the model's calls; short batches are padded, so that one program serves all.
      seed: of the model's noise.
      advance: called with the number of images after each batch.

    Returns:
      uint8 [k, h, w, 3].

    Raises:
      UserError: an output holds values that are not finite.
    """
    outputs = []
    for (layout, exemplar), real in _batches([layouts, exemplars], batch_size):
        images = model.generate(
            pairs.labels[layout], to_float(pairs.patches[exemplar]), pairs.labels[exemplar], seed=seed
        )
        images = np.asarray(images)[:real]
        if not np.isfinite(images).all():
            raise UserError("the model's output holds values that are not finite: its training has diverged")
        outputs.append(to_uint8(images))
        advance(real)
    return np.concatenate(outputs)


def reconstruction_metrics(
    outputs: np.ndarray,
    references: np.ndarray,
    *,
    batch_size: int,
    weights: Mapping[str, lpips_module.LpipsParams],
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, np.ndarray]:
    """Full-reference metrics, image by image.

    Args:
      outputs, references: uint8 [n, h, w, 3].
      batch_size: of LPIPS' networks.
      weights: of `load_lpips_weights`.
      advance: called with the number of images after each batch.

    Returns:
      float64 [n] each: psnr (dB), ssim, and lpips_vgg, lpips_alex for the given weights. Metrics that are not
      defined for images so small are left out.
    """
    size = min(outputs.shape[1:3])
    scores = {"psnr": psnr(outputs, references)}
    if size >= _MIN_SSIM_SIZE:
        scores["ssim"] = ssim(outputs, references)
    for net, params in weights.items():
        if size < lpips_module.min_size(net):
            continue
        values = []
        for (a, b), real in _batches([outputs, references], batch_size):
            values.append(np.asarray(_score_lpips(params, to_float(a), to_float(b)), np.float64)[:real])
            advance(real)
        scores[f"lpips_{net}"] = np.concatenate(values)
    return scores


def load_lpips_weights(nets: Sequence[str] = LPIPS_NETS) -> dict[str, lpips_module.LpipsParams]:
    """LPIPS parameters by network, on the device."""
    return {net: jax.device_put(lpips_module.load_lpips(net)) for net in nets}


def summarize(values: np.ndarray, photos: np.ndarray, seed: int = 0) -> dict[str, float | None]:
    """{"mean", "low", "high"}: the mean of [n] values and its 95% bootstrap interval, to six decimals.

    `photos` [n] are the photos that the values come from; low and high are None if they are all one.
    """
    low, high = bootstrap_interval(values, photos, seed=seed) or (None, None)
    found = {"mean": float(np.mean(values)), "low": low, "high": high}
    return {key: None if value is None else round(value, 6) for key, value in found.items()}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
      metrics: by kind of exemplar: n and each metric's `summarize`.
      swap: the swap test of the outputs and of the real patches: n; counted; `all`, the share of passes among
        the counted triples; half_n and `half`, the same among the half of those counted in both rows whose
        exemplars differ most. The shares as `summarize`, None where nothing counts. None without triples.
      outputs: by kind: uint8 [n, h, w, 3]; `random` holds the t outputs for the triples' exemplars a, and is
        missing without triples.
    """

    metrics: dict[str, dict[str, Any]]
    swap: dict[str, dict[str, Any]] | None
    outputs: dict[str, np.ndarray]


def steps_of(pairs: PairList, weights: Mapping[str, Any]) -> int:
    """How many images `evaluate` will report to `advance`, at most."""
    n, t = len(pairs.names), len(pairs.triples)
    return 2 * n + 2 * t + 2 * n * len(weights)


def evaluate(
    model: Synthesizes,
    pairs: PairList,
    num_classes: int,
    *,
    batch_size: int,
    weights: Mapping[str, lpips_module.LpipsParams],
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Runs the protocol.

    Args:
      model: see `Synthesizes`.
      pairs: of `freeze_pairs`.
      num_classes: C.
      batch_size: of all networks. The result does not depend on it, rounding apart.
      weights: of `load_lpips_weights`.
      seed: of the model's noise and of the bootstrap.
      advance: called with the number of images finished, of `steps_of` in all.

    Raises:
      UserError: an output is not finite.
    """
    n = len(pairs.names)
    first = np.arange(n)
    layouts, a, b = pairs.triples[:, 0], n + pairs.triples[:, 1], n + pairs.triples[:, 2]
    requests = {"cross": (first, n + first), "self": (first, first)}
    if len(layouts):
        requests |= {"a": (layouts, a), "b": (layouts, b)}
    outputs = {
        kind: synthesize(model, pairs, *request, batch_size=batch_size, seed=seed, advance=advance)
        for kind, request in requests.items()
    }

    metrics = {}
    for kind in ("cross", "self"):
        scores = reconstruction_metrics(
            outputs[kind], pairs.patches[:n], batch_size=batch_size, weights=weights, advance=advance
        )
        found = {name: summarize(values, pairs.photos, seed) for name, values in scores.items()}
        metrics[kind] = {"n": n, **found}

    pictures = {"cross": outputs["cross"], "self": outputs["self"]}
    if not len(layouts):
        return Evaluation(metrics, None, pictures)
    colours = class_colours(pairs.patches, pairs.labels, num_classes)
    made = [class_colours(outputs[kind], pairs.labels[layouts], num_classes) for kind in ("a", "b")]
    # The target patches of the photos that a and b were cut from.
    real = [colours.take(exemplar - n) for exemplar in (a, b)]
    exemplars = colours.take(a), colours.take(b)
    scores = {"outputs": score_swaps(*made, *exemplars), "real": score_swaps(*real, *exemplars)}
    # One half for both rows: other triples would be another test.
    comparable = scores["outputs"].counted & scores["real"].counted
    half = most_different(exemplar_distance(*exemplars), comparable)
    photos = pairs.photos[layouts]
    swap = {}
    for name, score in scores.items():
        swap[name] = {"n": len(layouts), "counted": int(score.counted.sum()), "half_n": int(half.sum())}
        for part, mask in {"all": score.counted, "half": half}.items():
            swap[name][part] = summarize(score.passed[mask], photos[mask], seed) if mask.any() else None
    return Evaluation(metrics, swap, pictures | {"random": outputs["a"]})


def grid_columns(pairs: PairList, evaluation: Evaluation, classes: ClassTable, rows: int = 8) -> list[Column]:
    """The columns of the picture that goes with the numbers, for the first `rows` pairs."""
    n = len(pairs.names)
    first = np.arange(min(rows, n))
    columns = [
        Column("label map", classes.colorize(pairs.labels[first]), flat=True),
        Column("target", pairs.patches[first]),
        Column("exemplar", pairs.patches[n + first]),
        Column("output", evaluation.outputs["cross"][first]),
    ]
    if evaluation.swap is None:
        return columns
    # The layout of triple i is that of pair i.
    return [
        *columns,
        Column("another photo as exemplar", pairs.patches[n + pairs.triples[first, 1]]),
        Column("its output", evaluation.outputs["random"][first]),
    ]
