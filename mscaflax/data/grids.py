"""Labelled grids of pictures: one row per example, one titled column per kind of picture."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mscaflax.data.pixels import to_uint8

_BACKGROUND = (255, 255, 255)
_INK = (30, 30, 30)
_FONT_SIZE = 15


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a grid.

    Attributes:
      title: a few words; broken into lines that fit the column.
      images: [n, h, w, 3], uint8 or float in [-1, 1].
      flat: whether pixels have hard borders, as in label maps: enlarged by repetition, not by interpolation.
    """

    title: str
    images: np.ndarray
    flat: bool = False


def _enlarge(image: np.ndarray, factor: int, flat: bool) -> Image.Image:
    picture = Image.fromarray(image)
    if factor == 1:
        return picture
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST if flat else Image.Resampling.LANCZOS)


def _break_lines(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def picture_grid(columns: Sequence[Column], *, min_cell: int = 128, gap: int = 6) -> Image.Image:
    """Draws a grid.

    Args:
      columns: at least one; all of the same number n of images and the same h and w.
      min_cell: the shorter side of a picture is enlarged to at least so many pixels, by a whole factor.
      gap: pixels between the pictures.

    Returns:
      An RGB picture on white.

    Raises:
      ValueError: the columns differ in shape or are empty.
    """
    stacks = [to_uint8(column.images) for column in columns]
    if not stacks or len({s.shape for s in stacks}) != 1 or stacks[0].ndim != 4 or not stacks[0].size:
        raise ValueError(f"columns must be arrays of one shape [n, h, w, 3], got {[s.shape for s in stacks]}")
    rows, height, width, _ = stacks[0].shape
    factor = max(1, -(-min_cell // min(height, width)))
    height, width = height * factor, width * factor

    font = ImageFont.load_default(_FONT_SIZE)
    line = _FONT_SIZE + 4
    titles = [_break_lines(column.title, font, width) for column in columns]
    header = max(map(len, titles)) * line + gap
    pitch = height + gap
    size = (len(stacks) * (width + gap) + gap, header + rows * pitch + gap)
    grid = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(grid)
    for j, (column, stack, lines) in enumerate(zip(columns, stacks, titles, strict=True)):
        left = gap + j * (width + gap)
        for i, text in enumerate(lines):
            # titles stand on the pictures, however many lines the longest takes
            top = header - gap // 2 - (len(lines) - i) * line
            draw.text((left + width / 2, top), text, _INK, font, anchor="ma")
        for i in range(rows):
            grid.paste(_enlarge(stack[i], factor, column.flat), (left, header + i * pitch))
    return grid
