"""`mscaflax export`: a trained model as one file that runs without this package."""

import argparse
import sys
from typing import Any

from mscaflax.errors import UserError

HELP = "make one file of a trained model that JAX runs without this package"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--workdir", metavar="DIR", help="the folder of `mscaflax train` or `mscaflax pack`")
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
    from mscaflax.apps.savedmodel import check_new_folder, export_savedmodel

    check, write = {
        "stablehlo": (check_output, export_model),
        "savedmodel": (check_new_folder, export_savedmodel),
    }[args.format]
    output = check(args.output)
    model = _open_model(args.workdir, args.step)
    print(f"lowering for {', '.join(PLATFORMS)}: this takes about half a minute", file=sys.stderr)
    size = write(model, output)
    print(f"{output} ({size / 1e6:.1f} MB)")
    return 0


def _open_model(workdir: str | None, step: int | None) -> Any:
    from mscaflax.training.model import load_model

    if workdir is None:
        raise UserError("give --workdir=DIR, the folder of `mscaflax train` or `mscaflax pack`")
    return load_model(workdir, step)
