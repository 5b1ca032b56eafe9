"""What the commands that change a photo have in common."""

import argparse
from typing import Any

from mscaflax.commands.argument_types import seed
from mscaflax.commands.shared import add_workdir


def add_photo_arguments(parser: argparse.ArgumentParser, label_help: str, guess_help: str) -> None:
    """Adds the arguments; the two texts say what --label is, and what to do without --photo_label."""
    add_workdir(parser)
    parser.add_argument("--photo", required=True, metavar="IMAGE", help="the photo; its pixels are kept")
    parser.add_argument("--photo_label", metavar="PNG", help=f"the photo's own label map ({guess_help})")
    parser.add_argument("--label", required=True, metavar="PNG", help=label_help)
    parser.add_argument("--output", required=True, metavar="PNG", help="where the picture goes")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the texture (default: 0)")
    parser.add_argument("--step", type=int, metavar="N", help="checkpoint to take (default: the last)")


def load_synthesizer(args: argparse.Namespace) -> Any:
    """The Synthesizer that the arguments name.

    Raises:
      UserError: as Synthesizer.from_workdir.
    """
    from mscaflax.apps.synthesizer import Synthesizer

    return Synthesizer.from_workdir(args.workdir, args.step)
