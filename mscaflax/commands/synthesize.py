"""`mscaflax synthesize`: one picture from a label map and a photo."""

import argparse
from pathlib import Path

from mscaflax.errors import UserError

HELP = "make a picture from a label map and an exemplar photo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the folder of `mscaflax train`")
    parser.add_argument("--label", required=True, metavar="PNG", help="the layout: ids or palette colours")
    parser.add_argument("--exemplar", required=True, metavar="IMAGE", help="a photo, whose style to take")
    parser.add_argument("--exemplar_label", required=True, metavar="PNG", help="the photo's label map")
    parser.add_argument("--output", required=True, metavar="PNG", help="where the picture goes")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the texture (default: 0)")
    parser.add_argument("--step", type=int, metavar="N", help="checkpoint to take (default: the last)")


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
      UserError: as Synthesizer; or an output that is no PNG in a folder that exists.
    """
    output = Path(args.output)
    if output.suffix.lower() != ".png":
        raise UserError(f"--output={output} must end in .png: a lossy format would change the picture")
    if not output.parent.is_dir() or output.is_dir():
        raise UserError(f"--output={output} cannot be written: choose a file in a folder that exists")
    from PIL import Image

    from mscaflax.apps.synthesizer import Synthesizer

    synthesizer = Synthesizer.from_workdir(args.workdir, args.step)
    picture = synthesizer(args.label, args.exemplar, args.exemplar_label, seed=args.seed)
    temporary = output.with_name(f".{output.name}.part")
    Image.fromarray(picture).save(temporary, format="PNG")
    temporary.replace(output)
    print(output)
    return 0
