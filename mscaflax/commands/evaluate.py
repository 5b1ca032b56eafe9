"""`mscaflax evaluate`: the numbers of a trained model, the pairs they stand on and a picture."""

import argparse
import contextlib
import dataclasses
import functools
import time

from mscaflax.commands.argument_types import natural, positive, seed
from mscaflax.commands.shared import add_workdir
from mscaflax.errors import UserError
from mscaflax.files import expanded

HELP = "measure a trained model: metrics.json, table.md, pairs.json, values.json, grid.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_workdir(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--split", help="split of the dataset (default: the config's val_split)")
    parser.add_argument("--pairs", type=positive, default=100, metavar="N", help="pairs (default: 100)")
    parser.add_argument(
        "--batch_size", type=positive, default=16, metavar="N", help="of the networks (default: 16)"
    )
    parser.add_argument(
        "--overlap_pairs",
        type=positive,
        metavar="N",
        help="on scenes: also N pairs each whose exemplar knows few, some and most classes of the target",
    )
    parser.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="draws the pairs, the outputs' noise and the bootstrap samples; 0..2^32-1 (default: 0)",
    )
    parser.add_argument(
        "--inception",
        metavar="FILE",
        help="pytorch-fid's pt_inception-2015-12-05-6726825d.pth: adds FID, which needs these weights",
    )
    parser.add_argument(
        "--guess_labels",
        type=seed,
        metavar="SEED",
        help="the exemplars' label maps are guesses of the workdir's segmenter of this seed",
    )
    parser.add_argument(
        "--segmenter_seed",
        type=seed,
        metavar="SEED",
        help="the segmenter that judges (default: the config's)",
    )
    parser.add_argument(
        "--beside",
        metavar="MODEL",
        help="grid.png shows this model's outputs, too: another workdir, or scenes64, which ships",
    )
    parser.add_argument("--step", type=natural, metavar="N", help="checkpoint to take (default: the last)")
    parser.add_argument(
        "--cpu_devices",
        type=positive,
        metavar="N",
        help="where there is no accelerator: split each batch over N devices of one CPU thread each "
        "(default: one per core); up to 8, no number depends on it",
    )
    parser.add_argument("--data_dir", metavar="DIR", help="where datasets lie (default: as in the config)")


def _load_judges(inception, size, batches, segmenter):
    import jax

    from mscaflax.evaluation import fid
    from mscaflax.evaluation.protocol import load_judges

    extractors = {}
    if inception:
        params = jax.device_put(fid.load_inception(inception))
        extractors["inception"] = functools.partial(fid.inception_features, params)
    return load_judges(size, batches, extractors, segmenter.predict if segmenter else None)


def _make_folder(output):
    try:
        output.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--output={output} is not a folder: choose another") from None


def _open_dataset(args, model):
    from mscaflax.data.datasets import open_dataset

    data = model.config.data
    dataset = open_dataset(data.name, args.data_dir or data.data_dir or None)
    if dataset.classes.names != model.classes.names:
        raise UserError(
            f"the dataset {dataset.name} has other classes than the model was trained with: "
            "prepare it with the same classes file, or train again"
        )
    return dataset


def _load_beside(args, model):
    """The model that the grid shows beside, and what it is called; (None, None) without one."""
    from mscaflax.apps.pretrained import pretrained_folder, shipped_models
    from mscaflax.training.model import load_model

    if not args.beside:
        return None, None
    shipped = args.beside in shipped_models()
    other = load_model(pretrained_folder(args.beside) if shipped else args.beside)
    if (other.classes.names, other.config.data.size) != (model.classes.names, model.config.data.size):
        raise UserError(
            f"--beside={args.beside} has other classes, or patches of another size: its pictures cannot "
            "stand beside these"
        )
    return other, f"{'the model that ships' if shipped else args.beside}, step {other.step}"


def _load_guesser(args, workdir, model, judge):
    """The Segmenter that gives the exemplars' label maps; None where they are the dataset's."""
    from mscaflax.training.segmenter import load_segmenter

    if args.guess_labels is None:
        return None
    guesser = load_segmenter(workdir, args.guess_labels, model.vgg)
    if judge is not None and judge.seed == guesser.seed:
        raise UserError(
            f"the segmenter of seed {guesser.seed} would judge its own labels: train another one by "
            f"`mscaflax segmenter --workdir={workdir} --seed={guesser.seed + 1}` and give its seed as "
            "--segmenter_seed, or as --guess_labels"
        )
    return guesser


@contextlib.contextmanager
def _progress(steps):
    """Gives `advance(count)`, which moves a bar of so many steps on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=steps)
        yield functools.partial(bar.advance, task)


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
      UserError: no checkpoint, no dataset, other classes than the model was trained with, or an unusable
        output folder.
    """
    started = time.perf_counter()
    from mscaflax.apps.pretrained import pretrained_folder
    from mscaflax.data.grids import picture_grid
    from mscaflax.evaluation import fid, overlap, protocol, report, truth
    from mscaflax.evaluation.batches import Batches
    from mscaflax.evaluation.generation import GuessesLabels, exemplars, synthesize
    from mscaflax.evaluation.pairlist import freeze_pairs
    from mscaflax.evaluation.tables import table
    from mscaflax.training.description import stored_fingerprint
    from mscaflax.training.model import load_model
    from mscaflax.training.segmenter import find_segmenter, load_segmenter
    from mscaflax.training.sharding import use_cpu_devices

    # The same pool on any machine of up to so many cores, with any number of devices up to that.
    use_cpu_devices(args.cpu_devices, pool=8)
    output = expanded(args.output)
    _make_folder(output)
    workdir = args.workdir or pretrained_folder()
    model = load_model(workdir, step=args.step)
    data, num_classes = model.config.data, model.classes.num_classes
    dataset = _open_dataset(args, model)
    other, other_title = _load_beside(args, model)
    split = args.split or data.val_split
    source = dataset.source(split)
    pairs = freeze_pairs(
        source,
        dataset=dataset.name,
        split=split,
        fingerprint=dataset.fingerprint,
        count=args.pairs,
        size=data.size,
        num_classes=num_classes,
        seed=args.seed,
        side_range=data.side_range,
    )
    batches = Batches(args.batch_size)
    # One that was asked for must be there; without the flag, the usual one if it is.
    find = find_segmenter if args.segmenter_seed is None else load_segmenter
    segmenter = find(workdir, args.segmenter_seed)
    guesser = _load_guesser(args, workdir, model, segmenter)
    weights = expanded(args.inception) if args.inception else None
    judges = _load_judges(weights, data.size, batches, segmenter)
    # Now, of the file that was read: it may be another one in the end.
    inception = fid.file_identity(weights) if weights else None
    scenes_size = truth.scenes_size(dataset, source)
    if args.overlap_pairs and not scenes_size:
        raise UserError(
            f"--overlap_pairs needs the true answers, which {dataset.name} does not have: only scenes do"
        )
    bins = overlap.draw_bins(pairs, num_classes, args.overlap_pairs, args.seed) if args.overlap_pairs else {}
    wanted = exemplars(pairs)
    steps = protocol.steps_of(pairs, judges, truth=bool(scenes_size)) + overlap.steps_of(bins, judges.lpips)
    if scenes_size:
        steps += len(pairs.names) * len(truth.foreign_exemplars(pairs, wanted))
    spread = model.over(batches.mesh)
    if guesser is not None:
        spread = GuessesLabels(spread, guesser.predict)
    answers = None
    with _progress(steps) as advance:
        shared = {"batches": batches, "seed": args.seed, "advance": advance}
        if scenes_size:
            answers = truth.scene_truth(pairs, wanted, scenes_size, advance=advance)
        evaluation = protocol.evaluate(spread, pairs, num_classes, judges=judges, truth=answers, **shared)
        if args.overlap_pairs:
            by_overlap, values = overlap.by_overlap(
                spread, pairs, bins, num_classes, size=scenes_size, weights=judges.lpips, **shared
            )
            evaluation = dataclasses.replace(
                evaluation, overlap=by_overlap, values=evaluation.values | {"overlap": values}
            )
    beside, title = None, "output"
    if other is not None:
        first = {kind: wanted[kind][: report.GRID_ROWS] for kind in evaluation.outputs}
        few = {"batches": Batches(report.GRID_ROWS), "seed": args.seed}
        if guesser is not None:
            other = GuessesLabels(other, guesser.predict)
        pictures = {kind: synthesize(other, pairs, chosen, **few) for kind, chosen in first.items()}
        beside, title = (other_title, pictures), f"output, step {model.step}"
    found = report.assemble(
        evaluation,
        pairs,
        photos=len(source),
        model=model,
        segmenter=segmenter,
        guesser=guesser,
        inception=inception,
        trained_on=stored_fingerprint(workdir),
        seconds=time.perf_counter() - started,
    )
    text = table(found, workdir)
    grid = picture_grid(report.grid_columns(pairs, evaluation, model.classes, answers, beside, title))
    values = report.values_json(evaluation, pairs, bins)
    report.write_report(output, found, text, pairs.to_json(), values, grid)
    print(text)
    print(f"{output / 'metrics.json'}\n{output / 'grid.png'}")
    return 0
