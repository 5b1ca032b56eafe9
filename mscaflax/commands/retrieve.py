"""`mscaflax retrieve`: exemplars for the label maps of a split, by likeness of the label maps."""

import argparse
import dataclasses
import json
from collections.abc import Callable
from typing import Any

from mscaflax.commands.argument_types import natural, positive
from mscaflax.errors import UserError
from mscaflax.files import writable_file

HELP = "find exemplars for the label maps of a split"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add = parser.add_argument
    add("--name", required=True, metavar="DATASET", help="a dataset that `mscaflax prepare` made")
    add("--data_dir", metavar="DIR", help="default: $TFDS_DATA_DIR or ~/tensorflow_datasets")
    add("--split", required=True, help="the targets, e.g. val, or val[:10%%]")
    add("--candidates", required=True, metavar="SPLIT", help="where exemplars come from, e.g. train")
    add("--output", required=True, metavar="FILE.json", help="where names and distances go")
    add("--count", type=positive, default=1, metavar="K", help="exemplars per target (default: 1)")
    add("--seed", type=natural, default=0, metavar="N", help="draws from the nearest 20%% (default: 0)")


def _open(dataset: Any, split: str) -> Any:
    """Random access to a split or a slice of one; raises UserError if there is no such, or it is empty."""
    # Names are unique in one split only, and tell which candidate is the target itself.
    if "+" in split:
        raise UserError(f"{split!r} joins splits: give one split, or a slice of one such as train[:10%]")
    return dataset.source(split)


def _describe(source: Any, classes: Any, advance: Callable[[], None]) -> tuple[list[str], Any]:
    """The names in `source`, and the descriptors [n, d] of its label maps."""
    from mscaflax.data.images import read_label_map
    from mscaflax.evaluation.retrieval import descriptors

    # In a prepared dataset the id C means unlabelled.
    stored = dataclasses.replace(classes, ignore=classes.num_classes)
    names = []

    def label_maps():
        for index in range(len(source)):
            example = source[index]
            names.append(example["name"])
            try:
                yield read_label_map(example["label"], stored)
            except UserError as error:
                raise UserError(f"{example['name']}: {error}: prepare the dataset again") from None
            advance()

    return names, descriptors(label_maps(), classes.num_classes)


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
      UserError: no such dataset or split, a label map that cannot be read, no candidate besides the target
        itself, a count above the nearest 20%, or an output that cannot be written.
    """
    output = writable_file("--output", args.output)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mscaflax.data.datasets import open_dataset
    from mscaflax.evaluation import retrieval
    from mscaflax.files import write_atomically

    dataset = open_dataset(args.name, args.data_dir)
    sources = {split: _open(dataset, split) for split in (args.split, args.candidates)}
    # Before minutes of reading; the exact number, without the target itself, is checked by the draw.
    retrieval.check_count(args.count, retrieval.nearest_count(len(sources[args.candidates])))

    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=sum(map(len, sources.values())))
        found = {
            split: _describe(source, dataset.classes, lambda: bar.advance(task))
            for split, source in sources.items()
        }
    targets, queries = found[args.split]
    names, candidates = found[args.candidates]
    same_split = args.split.split("[")[0] == args.candidates.split("[")[0]
    index_of = {name: index for index, name in enumerate(names)} if same_split else {}
    exclude = [index_of.get(target, -1) for target in targets]
    nearest = retrieval.rank(queries, candidates, exclude, names)
    drawn = retrieval.draw_exemplars(nearest, targets, args.count, args.seed)

    result = {
        "candidates": {"n": len(names), "split": args.candidates},
        "count": args.count,
        "dataset": dataset.name,
        "descriptor": {"grid": retrieval.GRID, "layout_weight": retrieval.LAYOUT_WEIGHT},
        "distance": "cosine distance of the label maps' descriptors, 0 to 1",
        "drawn": "uniformly from the nearest 20% by rank, the target itself excluded",
        "exemplars": [
            {
                "exemplars": [
                    {"distance": round(float(distance), 6), "name": names[index]}
                    for index, distance in zip(indices, distances, strict=True)
                ],
                "target": target,
            }
            for target, indices, distances in zip(targets, *drawn, strict=True)
        ],
        "seed": args.seed,
        "split": args.split,
    }
    text = json.dumps(result, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(output, text)
    print(output)
    return 0
