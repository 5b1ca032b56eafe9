"""What γ lets through, and what becomes of the pictures when it lets everything through.

python benchmarks/gate.py --workdir=RUN [--split=val] [--pairs=200] [--data_dir=DIR]

On pairs of different scenes, drawn by class overlap as `mscaflax evaluate --overlap_pairs` draws them. First
table, by scale: the share of the exemplar's regions that reaches a target position, Σ_k β γ, the mean over
the positions whose class the exemplar has and over those whose class it lacks; and how surely the share
tells them apart (area under the ROC curve; 0.5 is chance, more is as masking is meant). Second table: what
reaches γ's parameters of the gradient of the mean absolute error, over 16 of these pairs, beside the
projections that make α and β. Third table: the same network with γ as learned and with γ = 1, against the
true pictures.
"""

import argparse
import dataclasses

import jax
import numpy as np
import optax

from mscaflax.data.datasets import open_dataset
from mscaflax.data.pixels import to_float
from mscaflax.evaluation import overlap, reconstruction, truth
from mscaflax.evaluation.batches import Batches
from mscaflax.evaluation.pairlist import freeze_pairs
from mscaflax.training.model import load_model
from mscaflax.training.step import synthesize

BATCH = 16


def area_under_curve(higher, lower):
    """The chance that a value of `higher` exceeds one of `lower`, ties half (Mann-Whitney's U)."""
    values, counts = np.unique(np.concatenate([higher, lower]), return_inverse=True)
    above = np.bincount(counts[: len(higher)], minlength=len(values))
    below = np.bincount(counts[len(higher) :], minlength=len(values))
    smaller = np.cumsum(below) - below
    return float((above * (smaller + below / 2)).sum() / (len(higher) * len(lower)))


def passed_shares(model, pairs, chosen):
    """By scale: Σ_k β γ of every pair, float32 [n, h, w]; nothing of scales without regions."""

    @jax.jit
    def shares(alignments):
        return {
            scale: (a.assignment * a.gate[:, None, None, :]).sum(axis=-1)
            for scale, a in enumerate(alignments)
            if a is not None and a.gate is not None
        }

    n, found = len(pairs.names), []
    for start in range(0, len(chosen), BATCH):
        targets, styles = chosen[start : start + BATCH].T
        style = n + styles
        inputs = pairs.labels[targets], to_float(pairs.patches[style]), pairs.labels[style]
        found.append(jax.device_get(shares(model.align(*inputs))))
    return {scale: np.concatenate([part[scale] for part in found]) for scale in found[0]}


def print_gate(model, pairs, chosen):
    num_classes, n = model.classes.num_classes, len(pairs.names)
    labels = pairs.labels[chosen[:, 0]]
    known = reconstruction.known_pixels(labels, pairs.labels[n + chosen[:, 1]], num_classes)
    print("| scale | Σβγ, class in the exemplar | class not in the exemplar | area under the curve |")
    print("| --- | ---: | ---: | ---: |")
    for scale, share in passed_shares(model, pairs, chosen).items():
        step = 2**scale
        centre = slice(step // 2, None, step)
        has, real = known[:, centre, centre], labels[:, centre, centre] < num_classes
        inside, outside = share[has & real], share[~has & real]
        area = area_under_curve(inside, outside)
        print(f"| {scale} | {inside.mean():.3f} | {outside.mean():.3f} | {area:.3f} |")


def relative_gradients(network, params, statistics, vgg, batch):
    """‖gradient‖ / ‖parameters‖ of the mean absolute error, by scale and part of the alignment.

    Args:
      network: a SynthesisNetwork.
      params, statistics, vgg: its weights.
      batch: label, exemplar, exemplar_label and image, the true picture in [-1, 1].

    Returns:
      {scale: {"γ", "projections": float}}; of the scales that are on.
    """

    @jax.jit
    def gradient(params, statistics, vgg, batch):
        def error(params):
            return abs(
                synthesize(network, params, statistics, vgg, batch, None).image - batch["image"]
            ).mean()

        return jax.grad(error)(params)

    found = gradient(params, statistics, vgg, batch)["aligner"]
    parts = {
        "γ": ("region_embedding", "gate_hidden", "gate_out"),
        "projections": ("image_projection", "label_projection"),
    }

    def norm(tree, names):
        return float(optax.tree.norm({name: tree[name] for name in names}))

    return {
        int(scale.removeprefix("scale")): {
            part: norm(tree, names) / norm(params["aligner"][scale], names) for part, names in parts.items()
        }
        for scale, tree in sorted(found.items())
    }


def print_gradients(model, pairs, chosen, size):
    n = len(pairs.names)
    rng = np.random.default_rng(0)
    some = rng.permutation(chosen)[:BATCH]
    batch = {
        "label": pairs.labels[some[:, 0]],
        "exemplar": to_float(pairs.patches[n + some[:, 1]]),
        "exemplar_label": pairs.labels[n + some[:, 1]],
        "image": to_float(truth.draw_truth(pairs, *some.T, size)),
    }
    found = relative_gradients(model.network, model.params, model.statistics, model.vgg, batch)
    print("\n| scale | ‖gradient‖ / ‖parameters‖, γ | projections of α and β |")
    print("| --- | ---: | ---: |")
    for scale, row in found.items():
        print(f"| {scale} | {row['γ']:.1e} | {row['projections']:.1e} |")


def print_scores(models, pairs, bins, size):
    metrics = ("psnr", "lpips_alex", "missing_psnr", "missing_lpips_alex")
    weights = reconstruction.load_lpips_weights(["alex"])
    batches = Batches(BATCH)
    print("\n| overlap | γ | n | " + " | ".join(metrics) + " |")
    print("| --- | --- | ---: |" + " ---: |" * len(metrics))
    for name, model in models.items():
        means, _ = overlap.by_overlap(
            model.over(batches.mesh),
            pairs,
            bins,
            model.classes.num_classes,
            size=size,
            batches=batches,
            weights=weights,
        )
        for bin_name, row in means.items():
            # A bin can be empty, and so can the missing classes of all its pairs.
            found = [row.get(metric) for metric in metrics]
            cells = [f"{mean['mean']:.4f}" if mean else "-" for mean in found]
            print(f"| {bin_name} | {name} | {row['n']} | " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workdir", required=True, help="of a run on scenes with masking")
    parser.add_argument("--split", default="val", help="default: val, since what it says may lead to changes")
    parser.add_argument("--pairs", type=int, default=200, help="of each bin of overlap (default: 200)")
    parser.add_argument("--data_dir", help="where the dataset lies (default: as in the run's config)")
    options = parser.parse_args()
    model = load_model(options.workdir)
    if not model.network.masking or model.network.alignment != "msca":
        raise SystemExit(f"{options.workdir} was trained without γ: give a run with masking")
    data = model.config.data
    dataset = open_dataset(data.name, options.data_dir or data.data_dir or None)
    source = dataset.source(options.split)
    size = truth.scenes_size(dataset, source)
    if size is None:
        raise SystemExit(
            f"{options.workdir} was trained on photos: the true pictures are known of scenes alone"
        )
    pairs = freeze_pairs(
        source,
        dataset=data.name,
        split=options.split,
        fingerprint=dataset.fingerprint,
        count=options.pairs,
        size=data.size,
        num_classes=model.classes.num_classes,
        seed=0,
        side_range=tuple(data.side_range),
    )
    bins = overlap.draw_bins(pairs, model.classes.num_classes, options.pairs, 0)
    every = np.concatenate(list(bins.values()))
    print_gate(model, pairs, every)
    print_gradients(model, pairs, every, size)
    opened = dataclasses.replace(model, network=model.network.clone(masking=False))
    print_scores({"as learned": model, "1": opened}, pairs, bins, size)


if __name__ == "__main__":
    main()
