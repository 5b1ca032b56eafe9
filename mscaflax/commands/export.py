"""`mscaflax export`: a trained model as one file that runs without this package."""

import argparse
import sys
from typing import Any

from mscaflax.commands.shared import add_workdir
from mscaflax.files import new_folder

HELP = "make one file of a trained model that JAX runs without this package"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_workdir(parser)
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="the .zip to write; or the new folder"
    )
    parser.add_argument(
        "--format",
        choices=("stablehlo", "savedmodel"),
        default="stablehlo",
        help="a .zip for JAX (the default), or a folder for TensorFlow",
    )
    parser.add_argument("--step", type=int, metavar="N", help="checkpoint to take (default: the last)")


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
      UserError: as export_model or export_savedmodel; or there is no model.
    """
    from mscaflax.apps.export import PLATFORMS, check_output, export_model
    from mscaflax.apps.savedmodel import export_savedmodel

    if args.format == "stablehlo":
        output, write = check_output(args.output), export_model
    else:
        output, write = new_folder("--output", args.output), export_savedmodel
    model = _open_model(args.workdir, args.step)
    print(f"lowering for {', '.join(PLATFORMS)}: this takes about half a minute", file=sys.stderr)
    size = write(model, output)
    print(f"{output} ({size / 1e6:.1f} MB)")
    return 0


def _open_model(workdir: str | None, step: int | None) -> Any:
    from mscaflax.apps.pretrained import pretrained_folder
    from mscaflax.training.model import load_model

    return load_model(pretrained_folder() if workdir is None else workdir, step)
