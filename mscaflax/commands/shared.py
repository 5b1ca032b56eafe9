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
    synthesizer.tell_of_guesses(lambda line: print(line, file=sys.stderr))
