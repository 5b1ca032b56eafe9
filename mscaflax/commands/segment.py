"""`mscaflax segment`: the label map that the segmenter guesses for a photo."""

import argparse

from mscaflax.commands.output import output_path, save_png
from mscaflax.commands.shared import add_workdir, say_guessed

HELP = "guess a photo's label map, to look at, to mend or to edit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_workdir(parser)
    parser.add_argument("--photo", required=True, metavar="IMAGE", help="the photo")
    parser.add_argument(
        "--output", required=True, metavar="PNG", help="where the label map goes, in the classes' colours"
    )
    parser.add_argument("--step", type=int, metavar="N", help="checkpoint to take (default: the last)")


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
      UserError: as Synthesizer.segment; no model, or an output that is no PNG in a folder that exists.
    """
    output = output_path("--output", args.output)

    from mscaflax.apps.synthesizer import Synthesizer

    synthesizer = Synthesizer.from_workdir(args.workdir, args.step)
    label = synthesizer.segment(args.photo)
    say_guessed(synthesizer)
    # Colours, since an image editor may reorder the indices of a palette.
    save_png(output, synthesizer.classes.colorize(label))
    print(output)
    return 0
