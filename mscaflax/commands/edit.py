"""`mscaflax edit`: a photo changed through its label map."""

import argparse
import sys

from mscaflax.commands.argument_types import natural
from mscaflax.commands.output import output_path, save_png
from mscaflax.commands.photo_arguments import add_photo_arguments, load_synthesizer

HELP = "change a photo by editing its label map; the rest of it stays as it is"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    guess = "needed; `mscaflax segment` guesses one to begin with"
    add_photo_arguments(parser, "the edited label map", guess)
    parser.add_argument(
        "--margin",
        type=natural,
        metavar="N",
        help="pixels around the edit that are painted anew too (default: two at the scale of the training)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
      UserError: as mscaflax.apps.compose.edit; no model, or an output that is no PNG in a folder that exists.
    """
    output = output_path("--output", args.output)

    from mscaflax.apps.compose import check_edit_has_label
    from mscaflax.data.images import read_label_map

    check_edit_has_label(args.photo_label)
    synthesizer = load_synthesizer(args)

    picture = synthesizer.edit(args.photo, args.photo_label, args.label, margin=args.margin, seed=args.seed)
    before, after = (read_label_map(file, synthesizer.classes) for file in (args.photo_label, args.label))
    if (before == after).all():
        print("the label maps are equal: the picture is the photo itself", file=sys.stderr)
    save_png(output, picture)
    print(output)
    return 0
