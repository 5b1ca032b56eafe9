"""Draws docs/pictures/scenes.png, one layout a row in four styles: `python docs/make_scenes_picture.py`."""

from pathlib import Path

import numpy as np
from PIL import Image

from mscaflax.data.classes import ClassTable
from mscaflax.data.grids import Column, picture_grid
from mscaflax.data.scenes import CLASS_NAMES, KINDS, PALETTE, render, sample_layout, sample_style

STYLES = (4, 7, 10, 22)


def main():
    layouts = [sample_layout(0, index, kind) for index, kind in enumerate(KINDS)]
    size = (96, 192)
    labels = np.stack([render(layout, sample_style(0, 0), size)[1] for layout in layouts])
    classes = ClassTable(CLASS_NAMES, PALETTE)
    columns = [Column("label map", classes.colorize(labels.astype(np.int32)), flat=True)]
    for number, style in enumerate(STYLES, 1):
        images = [render(layout, sample_style(0, style), size)[0] for layout in layouts]
        columns.append(Column(f"style {number}", np.stack(images)))
    picture = picture_grid(columns, min_cell=size[0])
    path = Path(__file__).parent / "pictures" / "scenes.png"
    path.parent.mkdir(exist_ok=True)
    picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main()
