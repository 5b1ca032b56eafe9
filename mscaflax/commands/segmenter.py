"""`mscaflax segmenter`: trains the segmenter of a model's dataset, and scores it."""

import argparse
import io
import json
from typing import Any

from mscaflax.commands.argument_types import positive, rate, seed
from mscaflax.commands.training_console import add_cpu_devices, train_on_console
from mscaflax.errors import UserError

HELP = "train the network that predicts label maps, and keep it beside the model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add = parser.add_argument
    add("--workdir", required=True, metavar="DIR", help="the folder of `mscaflax train`")
    add(
        "--seed",
        type=seed,
        metavar="N",
        help="of the training; segmenters of other seeds lie beside it (default: as in the config, 0)",
    )
    add("--steps", type=positive, metavar="N", help="length of the training (default: as in the config)")
    add("--batch_size", type=positive, metavar="N", help="patches per step (default: as in the config)")
    add("--rate", type=rate, metavar="R", help="of AdamW at its highest (default: as in the config)")
    add("--data_dir", metavar="DIR", help="where datasets lie (default: as in the config)")
    add_cpu_devices(parser)


def _line(numbers: dict[str, float]) -> str:
    return (
        f"{numbers['train/patches_per_second']:.1f} patches/s  "
        f"cross entropy {numbers['loss/cross_entropy']:.3f}  accuracy {numbers['train/pixel_accuracy']:.3f}"
    )


def table(scores: dict[str, Any]) -> str:
    """The scores as lines of text, one class each."""
    lines = [
        f"pixel accuracy {scores['pixel_accuracy']:.4f}, mean IoU {scores['mean_iou']:.4f} "
        f"({scores['patches']} patches of {scores['dataset']} {scores['split']})"
    ]
    width = max(map(len, scores["class_iou"]))
    for name, value in scores["class_iou"].items():
        lines.append(f"  {name:{width}}  {'does not occur' if value is None else f'{value:.4f}'}")
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Runs the command: 0 when done or stopped by SIGTERM, 130 after Ctrl-C; both saved a checkpoint.

    Raises:
      UserError: no model in the workdir, no dataset, other classes than the model's, settings that another
        training of this seed did not have, or as mscaflax.training.loop.train.
    """
    from mscaflax.files import write_atomically
    from mscaflax.training.description import load_description, stored_fingerprint
    from mscaflax.training.segmenter import (
        BATCH,
        SCORES,
        SegmenterTask,
        restore_segmenter,
        segmentation_grid,
        segmenter_folder,
    )
    from mscaflax.training.sharding import split_cpu

    config, classes = load_description(args.workdir)
    for key in ("seed", "steps", "batch_size", "rate"):
        if getattr(args, key) is not None:
            config.segmenter[key] = getattr(args, key)
    if args.data_dir:
        config.data.data_dir = args.data_dir
    split_cpu(config.segmenter.batch_size, devices=args.cpu_devices, **BATCH)
    folder = segmenter_folder(args.workdir, config.segmenter.seed)
    made = []

    def make_task():
        task = SegmenterTask(config)
        if task.dataset.classes != classes:
            raise UserError(
                f"the dataset {task.dataset.name} has other classes than the model in {args.workdir}: "
                "prepare it with the same classes file, or train again"
            )
        if stored_fingerprint(args.workdir) not in (None, task.dataset.fingerprint):
            raise UserError(
                f"the dataset {task.dataset.name} was prepared anew since the model in {args.workdir} was "
                "trained: train again in another --workdir"
            )
        made.append(task)
        return task

    status = train_on_console(make_task, folder, config.segmenter.steps, _line)
    if status is not None:
        return status

    (task,) = made
    segmenter = restore_segmenter(folder)
    scores, patches, predicted = score(segmenter, task)
    shown = slice(0, min(6, len(patches.patches)))
    picture = io.BytesIO()
    grid = segmentation_grid(classes, patches.patches[shown], patches.labels[shown], predicted[shown])
    grid.save(picture, "PNG")
    write_atomically(folder / "sample.png", picture.getvalue())
    write_atomically(folder / SCORES, json.dumps(scores, indent=1, ensure_ascii=False) + "\n")
    print(table(scores))
    print(f"{folder / SCORES}\n{folder / 'sample.png'}")
    return 0


def score(segmenter: Any, task: Any) -> tuple[dict[str, Any], Any, Any]:
    """Scores a segmenter on the frozen validation patches of its task.

    Returns:
      (what scores.json holds, the PairList, the predicted maps int32 [2n, h, w]).

    Raises:
      UserError: no patch has a labelled pixel.
    """
    from mscaflax.data.pixels import to_float
    from mscaflax.evaluation.pairlist import freeze_pairs
    from mscaflax.evaluation.segmentation import confusion_matrix, segmentation_scores

    data, classes = task.config.data, segmenter.classes
    # The model's seed, not the segmenter's: all segmenters of a model are scored on the same patches.
    patches = freeze_pairs(
        task.val_source,
        dataset=task.dataset.name,
        split=data.val_split,
        fingerprint=task.dataset.fingerprint,
        count=task.settings.val_pairs,
        size=data.size,
        num_classes=classes.num_classes,
        seed=task.config.seed,
        side_range=data.side_range,
    )
    predicted = segmenter.predict(to_float(patches.patches))
    confusion = confusion_matrix(patches.labels, predicted, classes.num_classes)
    if not confusion.sum():
        raise UserError(
            f"no patch of {task.dataset.name} {data.val_split} has a labelled pixel: label some photos of it"
        )
    scores = segmentation_scores(confusion).to_json(classes.names) | {
        "dataset": task.dataset.name,
        "fingerprint": task.dataset.fingerprint,
        "patches": len(patches.patches),
        "patches_sha256": patches.sha256(),
        "seed": segmenter.seed,
        "size": data.size,
        "split": data.val_split,
        "step": segmenter.step,
    }
    return scores, patches, predicted
