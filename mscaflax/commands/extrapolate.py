"""`mscaflax extrapolate`: a photo continued beyond its border."""

import argparse
import sys

from mscaflax.commands.output import output_path, save_png
from mscaflax.commands.photo_arguments import add_photo_arguments, load_synthesizer
from mscaflax.commands.shared import say_guessed

HELP = "continue a photo beyond its border, under a larger label map"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_photo_arguments(
        parser,
        "the larger label map: the whole picture's layout",
        "default: the segmenter guesses it; needs --at",
    )
    parser.add_argument(
        "--at",
        type=_place,
        metavar="TOP,LEFT",
        help="the photo's upper left corner in it (default: where the photo's label map fits it best)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
      UserError: as mscaflax.apps.compose.extrapolate; no model, or an output that is no PNG in a folder that
        exists.
    """
    output = output_path("--output", args.output)
    synthesizer = load_synthesizer(args)

    from mscaflax.apps.compose import find_place
    from mscaflax.apps.inputs import check_photo, check_size
    from mscaflax.data.images import read_label_map

    at = args.at
    if args.photo_label is None and at is not None:
        check_photo(args.photo, "the photo")  # a mistake is told alone
        say_guessed(synthesizer)
    elif args.photo_label is not None and at is None:
        photo_label, layout = (
            read_label_map(file, synthesizer.classes) for file in (args.photo_label, args.label)
        )
        check_size(layout, "the layout")
        at = find_place(photo_label, layout)
        print(f"the photo's label map fits at --at={at[0]},{at[1]}", file=sys.stderr)
    picture = synthesizer.extrapolate(args.photo, args.photo_label, args.label, at=at, seed=args.seed)
    save_png(output, picture)
    print(output)
    return 0


def _place(text: str) -> tuple[int, int]:
    top, left = (int(part) for part in text.split(","))
    return top, left


_place.__name__ = "TOP,LEFT"  # argparse names the type in its message
