"""Several evaluations in one Markdown table: every kind of exemplar, every metric.

python benchmarks/side_by_side.py "true label maps=FOLDER" "guessed=FOLDER"

Each FOLDER is one that `mscaflax evaluate --output` wrote; what stands before "=" names it in the table.
A metric has its 95% bootstrap interval, where the evaluation has one, with --intervals.
`benchmarks/paired_difference.py` compares two of them pair by pair.
"""

import argparse
import json
from pathlib import Path

from markdown_tables import cell, markdown, pick
from study_tables import distance_warnings

from mscaflax.evaluation.overlap import BINS

REAL, TRUE_ANSWERS = "real", "true_answers"
# What the judges say of the real pictures, and of the true answers: the measure of the outputs.
MEASURES = {
    REAL: "the real pictures",
    f"{TRUE_ANSWERS} retrieved": "the true answers to retrieved",
    f"{TRUE_ANSWERS} random": "the true answers to random",
}
KINDS = {
    "cross": "the other patch",
    "self": "the target itself",
    "retrieved": "retrieved",
    "random": "random",
}
REFERENCE = (
    ("PSNR, dB ↑", "psnr", ".2f"),
    ("SSIM ↑", "ssim", ".3f"),
    ("LPIPS-VGG ↓", "lpips_vgg", ".4f"),
    ("LPIPS-Alex ↓", "lpips_alex", ".4f"),
)
SIMILARITY = (
    ("style relevance ↑", "style_relevance", ".3f"),
    ("semantic consistency ↑", "semantic_consistency", ".3f"),
)
SEGMENTATION = (
    ("pixel accuracy ↑", "pixel_accuracy", ".3f"),
    ("mIoU ↑", "mean_iou", ".3f"),
    ("mIoU lost ↓", "mean_iou_lost", ".3f"),
)
DISTANCES = {
    "vgg16": (("Fréchet on VGG-16 ↓", "frechet", ".2f"), ("KID on VGG-16 ↓", "kid", ".4f")),
    "inception": (("FID ↓", "frechet", ".2f"), ("KID on Inception-v3 ↓", "kid", ".4f")),
}


def columns_of(kind, networks):
    """(title, paths in metrics.json, format) of every metric of one kind of exemplar, bin or measure."""
    group = "overlap" if kind in BINS else "truth"
    metrics, _, of = kind.rpartition(" ") if kind.startswith(TRUE_ANSWERS) else ("metrics", "", kind)
    found = []
    for title, name, form in REFERENCE:
        # Against the true picture where one is known, else against the photo itself.
        found.append((title, ((group, kind, name), ("metrics", kind, name)), form))
    found += [(title, ((metrics, of, name),), form) for title, name, form in SIMILARITY]
    found += [(title, (("segmentation", kind, name),), form) for title, name, form in SEGMENTATION]
    for network in networks:
        for title, name, form in DISTANCES[network]:
            found.append((title, (("distances", kind, network, name),), form))
    return found


def table(evaluations, intervals=False):
    """Lines of Markdown.

    Args:
      evaluations: {name: content of a metrics.json}.
      intervals: show those that a metric has.
    """
    networks = sorted(
        {
            network
            for numbers in evaluations.values()
            for kind in (numbers.get("distances") or {}).values()
            for network in kind
        },
        reverse=True,
    )
    rows = []
    for kind in MEASURES:
        # One row for all that agree.
        found: dict[tuple, list[str]] = {}
        for name, numbers in evaluations.items():
            values = [_mean(_first(numbers, paths), intervals) for _, paths, _ in columns_of(kind, networks)]
            if any(value is not None for value in values):
                forms = [form for *_, form in columns_of(kind, networks)]
                found.setdefault(tuple(map(cell, values, forms)), []).append(name)
        for cells, names in found.items():
            whose = "" if len(names) == len(evaluations) else ": " + ", ".join(names)
            rows.append([MEASURES[kind] + whose, str(evaluations[names[0]]["pairs"]["n"]), *cells])
    for kind in (*KINDS, *BINS):
        for name, numbers in evaluations.items():
            columns = columns_of(kind, networks)
            values = [_mean(_first(numbers, paths), intervals) for _, paths, _ in columns]
            if any(value is not None for value in values):
                cells = [cell(v, form) for v, (_, _, form) in zip(values, columns, strict=True)]
                rows.append([f"{KINDS.get(kind, kind)}: {name}", str(_count(numbers, kind)), *cells])
    swaps = {name: _mean(pick(x, ("swap", "outputs", "all")), intervals) for name, x in evaluations.items()}
    swaps = [f"{name} {cell(value, '.1%')}" for name, value in swaps.items()]
    titles = ["exemplar", "n", *(title for title, _, _ in columns_of("random", networks))]
    shown = [i for i in range(len(titles)) if i < 2 or any(row[i] != cell(None, "") for row in rows)]
    body = [[row[i] for i in shown] for row in rows]
    lines = [*markdown([titles[i] for i in shown], body), "Swap test: " + ", ".join(swaps) + "."]
    return lines + distance_warnings(evaluations)


def _mean(value, intervals):
    """A mean with its interval, or without it."""
    return value["mean"] if isinstance(value, dict) and not intervals else value


def _first(numbers, paths):
    return next((value for path in paths if (value := pick(numbers, path)) is not None), None)


def _count(numbers, kind):
    return numbers["overlap"][kind]["n"] if kind in BINS else numbers["pairs"]["n"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("evaluations", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--intervals", action="store_true", help="of 95%%, from bootstrapping photos")
    options = parser.parse_args()
    found = {}
    for text in options.evaluations:
        name, equals, folder = text.partition("=")
        if not equals or not name or name in found:
            parser.error(f"{text!r}: give NAME=FOLDER, each name once")
        try:
            found[name] = json.loads((Path(folder) / "metrics.json").read_text())
        except (OSError, ValueError) as error:
            parser.error(f"{folder} holds no evaluation: {error}")
    if len({numbers["pairs"]["sha256"] for numbers in found.values()}) > 1:
        parser.error("the evaluations are of different pairs: give all the same --pairs, --seed and --split")
    print("\n".join(table(found, options.intervals)))


if __name__ == "__main__":
    main()
