"""Models against the true pictures, on scenes that no choice was made by.

python benchmarks/fresh_scenes.py WORKDIR [WORKDIR ...] [--pairs=200]

Whoever changes a network after a look at the test split's scores has chosen by that split. These scenes come
from a stream of their own, belong to no dataset, and are drawn anew by each call: look here last, and change
nothing afterwards. Prints PSNR and LPIPS-Alex under random exemplars and by class overlap, and how much each
further model differs from the first, pair by pair with 95% bootstrap intervals over scenes (* without zero).
"""

import argparse
from pathlib import Path

from markdown_tables import cell, markdown
from study_pairs import is_sure

from mscaflax.data import scenes
from mscaflax.data.inputs import SceneItem, scene_example
from mscaflax.errors import UserError
from mscaflax.evaluation import overlap, reconstruction
from mscaflax.evaluation.batches import Batches
from mscaflax.evaluation.metrics import summarize
from mscaflax.evaluation.pairlist import freeze_pairs
from mscaflax.training.model import load_model

METRICS = {"psnr": ("PSNR, dB ↑", ".2f"), "lpips_alex": ("LPIPS-Alex ↓", ".4f")}


def draw_pairs(count, data):
    """(pairs, chosen): the frozen pairs of as many fresh scenes; [target, exemplar] by name of the set.

    Args:
      count: of pairs, and of pairs in each bin of class overlap; at most as many as there are fresh scenes.
      data: `config.data` of the models.
    """
    items = [SceneItem(scenes.FRESH, index) for index in range(count)]
    num_classes = len(scenes.CLASS_NAMES)
    pairs = freeze_pairs(
        [scene_example(item) for item in items],
        dataset="scenes", split=scenes.FRESH, fingerprint="", count=count, size=data.size,
        num_classes=num_classes, seed=0, side_range=tuple(data.side_range),
    )  # fmt: skip
    return pairs, {"random": pairs.triples[:, :2]} | overlap.draw_bins(pairs, num_classes, count, 0)


def measure(model, pairs, chosen):
    """By set of pairs and metric: float64 [n], of each output against its true picture."""
    batches = Batches(16)
    weights = reconstruction.load_lpips_weights(["alex"])
    _, values = overlap.by_overlap(
        model.over(batches.mesh), pairs, chosen, model.classes.num_classes,
        size=scenes.SIZE, batches=batches, weights=weights,
    )  # fmt: skip
    return values


def rows_of(found, pairs, chosen):
    """Cells of the two tables: each model's means, and differences from the first model."""
    means, differences = [], []
    first, *_ = found
    for name, values in found.items():
        for place, row in values.items():
            photos = pairs.photos[chosen[place][:, 0]]
            cells = [cell(summarize(row[m], photos), form) for m, (_, form) in METRICS.items()]
            means.append([name, place, str(len(photos)), *cells])
            if name == first:
                continue
            cells = []
            for metric, (_, form) in METRICS.items():
                exemplars = pairs.photos[chosen[place][:, 1]]
                value = summarize(row[metric] - found[first][place][metric], photos, exemplars=exemplars)
                cells.append(cell(value, f"+{form}") + (" *" if is_sure(value) else ""))
            differences.append([f"{name} - {first}", place, str(len(photos)), *cells])
    return means, differences


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("workdirs", nargs="+", type=Path, help="of models of scenes, of one size")
    parser.add_argument("--pairs", type=int, default=200, help="default: 200")
    options = parser.parse_args()
    if not 3 <= options.pairs <= scenes.FRESH_SCENES:
        parser.error(f"--pairs={options.pairs} must lie in 3..{scenes.FRESH_SCENES}")
    try:
        models = {str(folder): load_model(folder) for folder in options.workdirs}
    except UserError as error:
        parser.error(str(error))
    first, *others = models.values()
    for model in (first, *others):
        if model.classes.names != scenes.CLASS_NAMES or model.config.data.size != first.config.data.size:
            parser.error("the models must be of scenes and of one size")
    pairs, chosen = draw_pairs(options.pairs, first.config.data)
    found = {name: measure(model, pairs, chosen) for name, model in models.items()}
    titles = ["", "exemplars", "n", *(title for title, _ in METRICS.values())]
    for table in rows_of(found, pairs, chosen):
        if table:
            print("\n".join(markdown(titles, table)))


if __name__ == "__main__":
    main()
