"""`mscaflax blend`: pictures between the styles of several photos, all over or from place to place."""

import argparse
import io
from pathlib import Path
from typing import Any

from mscaflax.commands.argument_types import positive
from mscaflax.commands.output import output_path, save_png
from mscaflax.commands.shared import add_workdir, say_guessed
from mscaflax.errors import UserError

HELP = "mix the styles of several exemplars: a strip, an animation, a ramp, class by class"

_STILL, _MOVING = (".png",), (".webp", ".gif")
_FRAME_MS = 120
GUESS = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_workdir(parser)
    parser.add_argument("--label", required=True, metavar="PNG", help="the layout: ids or palette colours")
    parser.add_argument("--exemplar", required=True, nargs="+", metavar="IMAGE", help="two photos or more")
    parser.add_argument(
        "--exemplar_label",
        nargs="+",
        metavar="PNG",
        help="their label maps, in the same order; - for one that the segmenter guesses (default: all)",
    )
    parser.add_argument(
        "--output", required=True, metavar="FILE", help=".png; .webp or .gif for an animation of the steps"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--steps", type=positive, metavar="N", help="pictures from the first style to the last (default: 5)"
    )
    how.add_argument(
        "--weights",
        metavar="W,W,...",
        help="one picture, with these weights of the exemplars, each in -10..10",
    )
    how.add_argument(
        "--ramp", choices=("horizontal", "vertical"), help="one picture, from one style to another"
    )
    how.add_argument(
        "--weight_map", metavar="PNG", help="one picture; white takes the second exemplar, black the first"
    )
    how.add_argument(
        "--classes", metavar="NAME=I,...", help="one picture; the exemplar (from 0) of each class, else 0"
    )
    parser.add_argument(
        "--begin", type=float, metavar="T", help="where the steps begin (default: 0, the first exemplar)"
    )
    parser.add_argument(
        "--end", type=float, metavar="T", help="where they end (default: 1, the last; more goes beyond)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the texture (default: 0)")
    parser.add_argument("--step", type=int, metavar="N", help="checkpoint to take (default: the last)")


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
      UserError: as mscaflax.apps.blend.Blender; arguments that do not fit each other; an output that cannot
        be written.
    """
    single = any(v is not None for v in (args.weights, args.ramp, args.weight_map, args.classes))
    if single and (args.begin, args.end) != (None, None):
        raise UserError("--begin and --end are of --steps: leave them out for a single picture")
    output = output_path("--output", args.output, _STILL if single else _STILL + _MOVING)
    labels = args.exemplar_label or [GUESS] * len(args.exemplar)
    if len(args.exemplar) != len(labels):
        raise UserError(f"{len(args.exemplar)} exemplars have {len(labels)} label maps: give one for each")
    if len(args.exemplar) < 2:
        raise UserError("give at least two exemplars: with one, `mscaflax synthesize` makes the picture")

    from mscaflax.apps.blend import Blender
    from mscaflax.apps.inputs import read_layout
    from mscaflax.apps.synthesizer import Synthesizer, check_seed

    check_seed(args.seed)
    synthesizer = Synthesizer.from_workdir(args.workdir, args.step)
    if GUESS in labels:
        say_guessed(synthesizer)
    pairs = zip(args.exemplar, labels, strict=True)
    exemplars = [synthesizer.read_exemplar(photo, None if x == GUESS else x) for photo, x in pairs]
    layout = read_layout(synthesizer.model, args.label)
    pictures = _pictures(args, Blender(synthesizer.model, layout, exemplars, args.seed))
    _save(pictures, output)
    print(output)
    return 0


def _pictures(args: argparse.Namespace, blender: Any) -> list[Any]:
    """uint8 [h, w, 3] each."""
    if args.weights is not None:
        try:
            weights = [float(weight) for weight in args.weights.split(",")]
        except ValueError:
            raise UserError(f"--weights={args.weights} must be numbers with commas, as in 0.5,0.5") from None
        return [blender.mix(weights)]
    if args.classes is not None:
        return [blender.mix_classes(_choice(args.classes))]
    if args.ramp is not None or args.weight_map is not None:
        if len(args.exemplar) != 2:
            raise UserError(f"--ramp and --weight_map mix two exemplars, got {len(args.exemplar)}")
        return [blender.mix_places(_weights(args, blender.layout.size))]
    begin, end = 0.0 if args.begin is None else args.begin, 1.0 if args.end is None else args.end
    return list(blender.path(args.steps or 5, begin, end))


def _choice(text: str) -> dict[str, int]:
    choice = {}
    for item in text.split(","):
        name, _, index = item.rpartition("=")
        if not name or not index.isdecimal():
            raise UserError(f"--classes={text} must look like sky=1,tree=0 (exemplars count from 0)")
        choice[name.strip()] = int(index)
    return choice


def _weights(args: argparse.Namespace, size: tuple[int, int]) -> Any:
    import numpy as np

    from mscaflax.apps.blend import ramp
    from mscaflax.data.images import read_photo

    if args.ramp is not None:
        return ramp(size, vertical=args.ramp == "vertical")
    second = read_photo(args.weight_map).mean(axis=-1) / 255
    if second.shape != size:
        (h, w), (map_h, map_w) = size, second.shape
        raise UserError(f"--weight_map={args.weight_map} is {map_w}x{map_h}, the label map {w}x{h} pixels")
    return np.stack([1 - second, second])


def _save(pictures: list[Any], output: Path) -> None:
    import numpy as np
    from PIL import Image

    from mscaflax.files import write_atomically

    if output.suffix.lower() not in _MOVING:
        save_png(output, np.concatenate(pictures, axis=1))
        return
    content = io.BytesIO()
    frames = [Image.fromarray(picture) for picture in pictures]
    # There and back again, without the ends twice.
    frames += frames[-2:0:-1]
    form = {"lossless": True} if output.suffix.lower() == ".webp" else {}
    frames[0].save(
        content, output.suffix[1:].upper(), save_all=True, append_images=frames[1:], loop=0,
        duration=_FRAME_MS, **form,
    )  # fmt: skip
    write_atomically(output, content.getvalue())
