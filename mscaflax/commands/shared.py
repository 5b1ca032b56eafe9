"""What commands that use a trained model have in common."""

import argparse
import sys
from typing import Any


def add_workdir(parser: argparse.ArgumentParser) -> None:
    """Adds --workdir, whose default, None, is the model that ships with the package."""
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        help="the folder of `mscaflax train` (default: the model that ships, scenes64)",
    )


def say_guessed(synthesizer: Any) -> None:
    """Tells on stderr that label maps are guessed, and how well.

    Raises:
      UserError: the model has no segmenter.
    """
    scores = synthesizer.segmenter.scores or {}
    known = (
        f": on validation patches, its mean IoU is {scores['mean_iou']:.2f}" if "mean_iou" in scores else ""
    )
    print(f"the segmenter guesses the label map of photos that come without{known}", file=sys.stderr)
