"""`mscaflax prepare`: photos and label maps, COCO-Stuff or the embedded scenes become a TFDS dataset."""

import argparse
import signal

from mscaflax.data.datasets import check_name
from mscaflax.errors import UserError

HELP = "check photos and label maps and build them as a dataset"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add = parser.add_argument
    add("--name", required=True, help="scenes, coco_stuff, or any name for photos of your own")
    add("--images", metavar="DIR", help="photos: DIR/SPLIT/NAME.jpg (or .png, ...)")
    add("--annotations", metavar="DIR", help="label maps: DIR/SPLIT/NAME.png, 8-bit class ids")
    add("--classes", metavar="FILE", help='{"classes": [names], "palette": [[r, g, b], ...], "ignore": 255}')
    add("--source", metavar="DIR", help="of coco_stuff: {train,val}2017 and stuffthingmaps/{train,val}2017")
    add("--data_dir", metavar="DIR", help="default: $TFDS_DATA_DIR or ~/tensorflow_datasets")
    add("--skip_bad", action="store_true", help="leave out examples that cannot be used")
    add("--workers", type=int, metavar="N", help="worker processes (default: one per core)")
    add("--overwrite", action="store_true", help="build again a dataset that is already there")


def _require(args: argparse.Namespace, wanted: tuple[str, ...]) -> None:
    """Raises UserError unless exactly the arguments `wanted` are given among those that name the input."""
    kinds = ("images", "annotations", "classes", "source")
    missing = [f"--{key}" for key in wanted if not getattr(args, key)]
    if missing:
        raise UserError(f"--name={args.name} needs {' and '.join(missing)}")
    extra = [f"--{key}" for key in kinds if key not in wanted and getattr(args, key)]
    if extra:
        raise UserError(f"--name={args.name} does not take {' or '.join(extra)}")


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        UserError: wrong arguments or unusable input.
    """
    from rich.console import Console

    from mscaflax.data.inputs import coco_stuff_inputs, folder_inputs, scenes_inputs
    from mscaflax.data.prepare import prepare

    check_name(args.name)
    if args.name == "scenes":
        _require(args, ())
        inputs = scenes_inputs()
    elif args.name == "coco_stuff":
        _require(args, ("source",))
        with Console(stderr=True).status("reading the files"):
            inputs = coco_stuff_inputs(args.name, args.source)
    else:
        _require(args, ("images", "annotations", "classes"))
        with Console(stderr=True).status("reading the files"):
            inputs = folder_inputs(args.name, args.images, args.annotations, args.classes)
    # SIGTERM, as from a job scheduler, unwinds like Ctrl-C, so that nothing half-built stays behind.
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        prepare(inputs, args.data_dir, skip_bad=args.skip_bad, workers=args.workers, overwrite=args.overwrite)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt
