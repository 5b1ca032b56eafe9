"""Makes the README's pictures of the applications by the commands that it shows: python docs/make_pictures.py

All photos are embedded scenes of the test split, which the shipped model has not seen.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from mscaflax.apps.pretrained import pretrained_folder
from mscaflax.data import scenes
from mscaflax.data.classes import ClassTable
from mscaflax.data.grids import Column, picture_grid

PICTURES = Path(__file__).parent / "pictures"
SIZE = (64, 128)
CLASSES = ClassTable(scenes.CLASS_NAMES, scenes.PALETTE)
# (layout, style) of the first picture.
PAIRS = ((0, 7), (1, 6), (3, 8), (4, 9), (2, 11), (5, 10))


def draw(layout, style, size=SIZE):
    """A picture of scene `layout` in the style of scene `style`, and its label map, both uint8."""
    image, label = scenes.render(scenes.scene("test", layout)[0], scenes.scene("test", style)[1], size)
    return image, label.astype(np.uint8)


def mscaflax(folder, *arguments):
    """Runs a command in a folder, with the shipped model."""
    print("$ mscaflax", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "mscaflax", *arguments], cwd=folder, check=True)


def without(label, unwanted, passed_over, columns):
    """A label map without some classes in some columns: there, what is nearest in the row of all but some."""
    found = label.copy()
    for row in found:
        here = np.flatnonzero(np.isin(row[columns], unwanted)) + columns.start
        others = np.flatnonzero(~np.isin(row, passed_over))
        if not len(others):
            continue
        row[here] = row[others[np.abs(here[:, None] - others).argmin(axis=1)]]
    return found


def write(folder, **pictures):
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")


def read(folder, name):
    return np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))


def save(name, grid):
    grid.save(PICTURES / f"{name}.png", "PNG", optimize=True)


def synthesis(folder):
    """Layout, exemplar, output and truth."""
    rows = []
    for layout, style in PAIRS:
        (_, label), (photo, photo_label) = draw(layout, layout), draw(style, style)
        write(folder, layout=label, photo=photo, photo_label=photo_label)
        mscaflax(
            folder, "synthesize", "--label=layout.png", "--exemplar=photo.png",
            "--exemplar_label=photo_label.png", "--output=picture.png",
        )  # fmt: skip
        truth, _ = draw(layout, style)
        rows.append((CLASSES.colorize(label), photo, read(folder, "picture"), truth))
    titles = ("label map", "exemplar", "output", "truth")
    columns = zip(titles, map(np.stack, zip(*rows, strict=True)), strict=True)
    save("shipped", picture_grid([Column(t, images, t == "label map") for t, images in columns]))


def attention(folder):
    (_, label), (photo, photo_label) = draw(1, 1), draw(8, 8)
    write(folder, layout=label, photo=photo, photo_label=photo_label)
    mscaflax(
        folder, "synthesize", "--label=layout.png", "--exemplar=photo.png",
        "--exemplar_label=photo_label.png", "--output=picture.png", f"--attention={PICTURES}/attention.png",
    )  # fmt: skip


def blend(folder):
    """A strip from one style to another, a ramp, and the sky of the one over the rest of the other."""
    label = draw(0, 0)[1]
    (day, day_label), (night, night_label) = draw(6, 6), draw(7, 7)
    write(folder, layout=label, day=day, day_label=day_label, night=night, night_label=night_label)
    shared = (
        "blend", "--label=layout.png", "--exemplar", "day.png", "night.png",
        "--exemplar_label", "day_label.png", "night_label.png",
    )  # fmt: skip
    mscaflax(folder, *shared, "--steps=4", "--output=strip.png")
    mscaflax(folder, *shared, "--ramp=horizontal", "--output=ramp.png")
    mscaflax(folder, *shared, "--classes=sky=1,sun=1,cloud=1", "--output=classes.png")
    strip = np.stack(np.split(read(folder, "strip"), 4, axis=1))
    rows = [
        [day, night, read(folder, "ramp"), read(folder, "classes")],
        list(strip),
    ]
    titles = ("first exemplar; 0", "second exemplar; 1/3", "--ramp; 2/3", "--classes; 1")
    save("blend", picture_grid([Column(t, np.stack(c)) for t, *c in zip(titles, *rows, strict=True)]))


def extrapolation(folder):
    whole, layout = draw(8, 8, (96, 192))
    inside = (slice(16, 80), slice(32, 160))
    write(folder, photo=whole[inside], photo_label=layout[inside], larger=layout)
    mscaflax(
        folder, "extrapolate", "--photo=photo.png", "--photo_label=photo_label.png",
        "--label=larger.png", "--output=continued.png",
    )  # fmt: skip
    framed = np.full_like(whole, 255)
    framed[inside] = whole[inside]
    save(
        "extrapolate",
        picture_grid(
            [
                Column("photo", framed[None]),
                Column("larger label map", CLASSES.colorize(layout)[None], flat=True),
                Column("photo continued", read(folder, "continued")[None]),
            ]
        ),
    )


def editing(folder):
    photo, label = draw(8, 8)
    tree, grass, water = (scenes.CLASS_NAMES.index(name) for name in ("tree", "grass", "water"))
    houses = [scenes.CLASS_NAMES.index(name) for name in ("building", "window")]
    edited = without(label, [tree], [tree, *houses], columns=slice(0, 64))
    edited[46:, 80:][label[46:, 80:] == grass] = water
    write(folder, photo=photo, photo_label=label, edited=edited)
    mscaflax(
        folder, "edit", "--photo=photo.png", "--photo_label=photo_label.png",
        "--label=edited.png", "--output=changed.png",
    )  # fmt: skip
    save(
        "edit",
        picture_grid(
            [
                Column("photo", photo[None]),
                Column("its label map", CLASSES.colorize(label)[None], flat=True),
                Column("edited", CLASSES.colorize(edited)[None], flat=True),
                Column("photo changed", read(folder, "changed")[None]),
            ]
        ),
    )


def main():
    pretrained_folder()  # say at once if it is not there
    for make in (synthesis, attention, blend, extrapolation, editing):
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))


if __name__ == "__main__":
    main()
