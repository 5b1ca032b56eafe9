"""The embedded dataset: procedural landscapes and streets, in numpy alone.

A scene is a layout (what is where) and a style (how it looks: time of day, season, weather, a palette per
class, direction of the light, texture frequency). The two are independent, so `render(layout_a, style_b)` is
the true answer to "layout A in the style of scene B".
"""

from __future__ import annotations

import numpy as np

from mscaflax.data import scene_built, scene_paint, scene_trees
from mscaflax.data.scene_canvas import Canvas
from mscaflax.data.scene_elements import CLASS_NAMES, PALETTE, Layout
from mscaflax.data.scene_layouts import KINDS, sample_layout
from mscaflax.data.scene_styles import Style, look_of, sample_style
from mscaflax.errors import UserError

__all__ = [
    "CLASS_NAMES",
    "FRESH",
    "FRESH_SCENES",
    "KINDS",
    "PALETTE",
    "RENDERER_VERSION",
    "SIZE",
    "SPLITS",
    "Layout",
    "Style",
    "render",
    "sample_layout",
    "sample_style",
    "named_scene",
    "scene",
    "scene_name",
]

# Raised by hand with every change of what is drawn, so that datasets of older scenes are built again. Hashes
# of the pixels would not do: another CPU or numpy may round some of them differently.
RENDERER_VERSION = 1
SPLITS = {"train": 4000, "val": 200, "test": 200}
SIZE = (128, 256)
# Scenes that no dataset holds, so that no choice was made by them: benchmarks/fresh_scenes.py.
FRESH, FRESH_SCENES = "fresh", 1000
_COUNTS = SPLITS | {FRESH: FRESH_SCENES}
_STREAMS = {"train": 1, "val": 2, "test": 3, FRESH: 4}
_PAINTERS = scene_paint.PAINTERS | scene_trees.PAINTERS | scene_built.PAINTERS


def scene(split: str, index: int) -> tuple[Layout, Style]:
    """Layout and style of scene `index` of a split; every split draws both from streams of its own.

    Args:
      split: train, val, test, or FRESH, which is no split of a dataset.
      index: 0 ≤ index < SPLITS[split], or FRESH_SCENES.

    Raises:
      UserError: for an unknown split or an index outside it.
    """
    if split not in _COUNTS:
        raise UserError(f"scenes has no split '{split}': choose one of {', '.join(SPLITS)}")
    if not 0 <= index < _COUNTS[split]:
        raise UserError(f"scenes {split} has scenes 0 to {_COUNTS[split] - 1}, not {index}")
    return sample_layout(_STREAMS[split], index), sample_style(_STREAMS[split], index)


def scene_name(split: str, index: int) -> str:
    """The name of a scene's record in a dataset: `SPLIT_INDEX`, the index in five digits."""
    return f"{split}_{index:05d}"


def named_scene(name: str) -> tuple[Layout, Style]:
    """Layout and style of the scene whose record has this name.

    Raises:
      UserError: `scene_name` gives no such name.
    """
    split, _, index = name.rpartition("_")
    if not index.isdecimal() or scene_name(split, int(index)) != name:
        raise UserError(f"{name!r} is not the name of a scene")
    return scene(split, int(index))


def render(layout: Layout, style: Style, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Paint a layout in a style.

    Scenes are 2:1; a size of another shape shows the largest centred part of its shape.

    Args:
      layout: what is where; it alone decides the label map.
      style: how it looks.
      size: (height, width) in pixels, at least 1 each.

    Returns:
      (image uint8 [h, w, 3] sRGB, label uint8 [h, w] in 0..11).
    """
    canvas = Canvas(layout, look_of(style), size)
    scene_paint.paint_sky(canvas)
    for element, floor in zip(layout.elements, scene_paint.floors(layout.elements), strict=True):
        canvas.floor = floor
        _PAINTERS[type(element)](canvas, element)
    # A soft shoulder keeps bright colours from clipping flat.
    image = np.maximum(canvas.image, 0)
    over = np.maximum(image - 0.8, 0)
    image = np.minimum(image, 0.8) + over / np.sqrt(1 + 25 * over * over)
    image *= 255
    image += 0.5
    pixels = np.empty((*size, 3), np.uint8)
    for channel in range(3):
        pixels[..., channel] = image[channel]
    return pixels, canvas.label
