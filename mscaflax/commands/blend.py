"""`mscaflax blend`: pictures between the styles of several photos, all over or from place to place."""

import argparse
import io
from pathlib import Path
from typing import Any

from mscaflax.commands.argument_types import positive, seed
from mscaflax.commands.output import output_path, save_png
from mscaflax.commands.shared import add_workdir, say_guessed
from mscaflax.errors import UserError

HELP = "mix the styles of several exemplars: a strip, an animation, a ramp, class by class"

_STILL, _MOVING = (".png",), (".webp", ".gif")
_STEPS, _FRAME_MS = 5, 120
_WEBP_SIDE = 16383  # its headers have 14 bits for a side (WebP container specification)
_INDEX_DIGITS = 6  # of an exemplar: far more than any command line has, and few enough to be shown
_SHOWN = 80  # of a wrong argument
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
        "--steps",
        type=positive,
        metavar="N",
        help=f"pictures from the first style to the last (default: {_STEPS})",
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
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the texture (default: 0)")
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

    choice = None if args.classes is None else _choice(args.classes)

    from mscaflax.apps.blend import Blender, check_steps
    from mscaflax.apps.inputs import read_layout
    from mscaflax.apps.synthesizer import Synthesizer

    synthesizer = Synthesizer.from_workdir(args.workdir, args.step)
    layout = read_layout(synthesizer.model, args.label)
    if not single:
        check_steps(args.steps or _STEPS, layout.size)
    _check_fits(output, layout.size)
    if GUESS in labels:
        say_guessed(synthesizer)
    pairs = zip(args.exemplar, labels, strict=True)
    exemplars = [synthesizer.read_exemplar(photo, None if x == GUESS else x) for photo, x in pairs]
    pictures = _pictures(args, choice, Blender(synthesizer.model, layout, exemplars, args.seed))
    _save(pictures, output)
    print(output)
    return 0


def _check_fits(output: Path, size: tuple[int, int]) -> None:
    h, w = size
    if output.suffix.lower() == ".webp" and max(h, w) > _WEBP_SIDE:
        raise UserError(
            f"--output={output}: WebP has at most {_WEBP_SIDE} pixels a side, the label map is {w}x{h}: "
            "choose .gif or .png"
        )


def _pictures(args: argparse.Namespace, choice: dict[str, int] | None, blender: Any) -> list[Any]:
    """uint8 [h, w, 3] each."""
    if args.weights is not None:
        try:
            weights = [float(weight) for weight in args.weights.split(",")]
        except ValueError:
            raise UserError(f"--weights={args.weights} must be numbers with commas, as in 0.5,0.5") from None
        return [blender.mix(weights)]
    if choice is not None:
        return [blender.mix_classes(choice)]
    if args.ramp is not None or args.weight_map is not None:
        if len(args.exemplar) != 2:
            raise UserError(f"--ramp and --weight_map mix two exemplars, got {len(args.exemplar)}")
        return [blender.mix_places(_weights(args, blender.layout.size))]
    begin, end = 0.0 if args.begin is None else args.begin, 1.0 if args.end is None else args.end
    return list(blender.path(args.steps or _STEPS, begin, end))


def _choice(text: str) -> dict[str, int]:
    choice = {}
    for item in text.split(","):
        name, _, index = item.rpartition("=")
        name = name.strip()
        if not name or not index.isdecimal() or len(index) > _INDEX_DIGITS:
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
            raise UserError(f"--classes={shown} must look like sky=1,tree=0 (exemplars count from 0)")
        if name in choice:
            raise UserError(f"--classes={text} names {name!r} twice: give one exemplar for each class")
        choice[name] = int(index)
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
