"""What the commands that change a photo have in common."""

import argparse
from typing import Any

from mscaflax.errors import UserError


def add_photo_arguments(parser: argparse.ArgumentParser, label_help: str) -> None:
    """Adds the arguments; `label_help` says what --label is."""
    parser.add_argument("--workdir", metavar="DIR", help="the folder of `mscaflax train`")
    parser.add_argument("--photo", required=True, metavar="IMAGE", help="the photo; its pixels are kept")
    parser.add_argument("--photo_label", required=True, metavar="PNG", help="the photo's own label map")
    parser.add_argument("--label", required=True, metavar="PNG", help=label_help)
    parser.add_argument("--output", required=True, metavar="PNG", help="where the picture goes")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the texture (default: 0)")
    parser.add_argument("--step", type=int, metavar="N", help="checkpoint to take (default: the last)")


def load_synthesizer(args: argparse.Namespace) -> Any:
    """The Synthesizer that the arguments name.

    Raises:
      UserError: none is named; as Synthesizer.from_workdir.
    """
    if args.workdir is None:
        raise UserError("give --workdir=DIR, the folder of `mscaflax train`")

    from mscaflax.apps.synthesizer import Synthesizer

    return Synthesizer.from_workdir(args.workdir, args.step)
