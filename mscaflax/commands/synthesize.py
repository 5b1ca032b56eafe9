"""`mscaflax synthesize`: one picture from a label map and a photo."""

import argparse

from mscaflax.commands.argument_types import seed
from mscaflax.commands.output import output_path, save_png
from mscaflax.commands.shared import add_workdir, say_guessed
from mscaflax.errors import UserError

HELP = "make a picture from a label map and an exemplar photo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_workdir(parser)
    parser.add_argument("--label", required=True, metavar="PNG", help="the layout: ids or palette colours")
    parser.add_argument("--exemplar", required=True, metavar="IMAGE", help="a photo, whose style to take")
    parser.add_argument(
        "--exemplar_label", metavar="PNG", help="the photo's label map (default: the segmenter guesses it)"
    )
    parser.add_argument("--output", required=True, metavar="PNG", help="where the picture goes")
    parser.add_argument(
        "--attention", metavar="PNG", help="where a picture goes of which part of the exemplar feeds which"
    )
    parser.add_argument(
        "--attention_scale", type=int, metavar="I", help="of it: 0, the finest, to 4 (default: 2)"
    )
    parser.add_argument(
        "--attention_regions",
        type=int,
        metavar="N",
        help="of it: how many regions to draw, the most used first (default: 8)",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the texture (default: 0)")
    parser.add_argument("--step", type=int, metavar="N", help="checkpoint to take (default: the last)")


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
      UserError: as Synthesizer; or an output that is no PNG in a folder that exists.
    """
    output = output_path("--output", args.output)
    attention = None if args.attention is None else output_path("--attention", args.attention)
    for name in ("attention_scale", "attention_regions"):
        if attention is None and getattr(args, name) is not None:
            raise UserError(f"--{name} says something about --attention=PNG alone: give both")
    if args.attention_regions is not None and args.attention_regions < 1:
        raise UserError(f"--attention_regions={args.attention_regions} draws none: give 1 or more")
    if attention is not None and attention.absolute() == output.absolute():
        raise UserError("--output and --attention name the same file: give two")

    from mscaflax.apps.inputs import check_photo
    from mscaflax.apps.synthesizer import Synthesizer

    synthesizer = Synthesizer.from_workdir(args.workdir, args.step)
    given = args.label, args.exemplar, args.exemplar_label
    if args.exemplar_label is None:
        check_photo(args.exemplar, "the exemplar")  # a mistake is told alone
        say_guessed(synthesizer)
    if attention is None:
        pictures = {output: synthesizer(*given, seed=args.seed)}
    else:
        # The attention may not exist, and then nothing is written.
        explanation = synthesizer.explain(*given, scale=args.attention_scale, seed=args.seed)
        some = args.attention_regions
        drawn = explanation.draw() if some is None else explanation.draw(some)
        pictures = {attention: drawn, output: explanation.picture}
    for path, picture in pictures.items():
        save_png(path, picture)
    for path in (output, attention):
        if path is not None:
            print(path)
    return 0
