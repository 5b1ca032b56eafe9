"""`mscaflax pack`: a trained model as a small folder to hand on."""

import argparse

HELP = "make a small folder of a trained model, to hand on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the folder of `mscaflax train`")
    parser.add_argument("--output", required=True, metavar="DIR", help="the new folder; usable as --workdir")
    parser.add_argument("--step", type=int, metavar="N", help="checkpoint to take (default: the last)")


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
      UserError: as mscaflax.training.packed.pack.
    """
    from mscaflax.training.packed import pack

    size = pack(args.workdir, args.output, args.step)
    print(f"{args.output} ({size / 1e6:.1f} MB)")
    return 0
