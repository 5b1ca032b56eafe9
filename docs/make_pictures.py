"""Makes the README's pictures of the applications by the commands that it shows: python docs/make_pictures.py

`--files=DIR` draws the photos and label maps alone that these commands name. All are embedded scenes of the
test split, which the shipped model has not seen.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from mscaflax import Synthesizer
from mscaflax.data import scenes
from mscaflax.data.classes import ClassTable
from mscaflax.data.grids import Column, picture_grid

PICTURES = Path(__file__).parent / "pictures"
SIZE = (64, 128)
CLASSES = ClassTable(scenes.CLASS_NAMES, scenes.PALETTE)
# (layout, style) of the first picture.
PAIRS = ((0, 7), (1, 6), (3, 8), (4, 9), (2, 11), (5, 10))
# Where in the larger label map the photo lies that is continued.
INSIDE = (slice(16, 80), slice(32, 160))


def draw(layout, style, size=SIZE):
    """A picture of scene `layout` in the style of scene `style`, and its label map, both uint8."""
    image, label = scenes.render(scenes.scene("test", layout)[0], scenes.scene("test", style)[1], size)
    return image, label.astype(np.uint8)


def example_files():
    """What the README's commands name: {name: a photo, uint8 [h, w, 3], or a label map, uint8 [h, w]}."""
    found = {"layout": draw(2, 2)[1]}
    for name, scene in (("style", 8), ("day", 6), ("night", 7), ("photo", 38)):
        found[name], found[f"{name}_label"] = draw(scene, scene)
    found["edited"] = edited(found["photo_label"])
    whole, found["larger"] = draw(11, 11, (96, 192))
    found["part"], found["part_label"] = whole[INSIDE], found["larger"][INSIDE]
    return found


def edited(label):
    """The desert of scene 38 without its road, with two cacti and a cloud of other scenes."""
    cloud, sky, tree, sand, road = map(scenes.CLASS_NAMES.index, ("cloud", "sky", "tree", "sand", "road"))
    found = np.where(label == road, sand, label).astype(np.uint8)
    for scene, thing, columns, shift, over in (
        (9, tree, slice(0, 40), (0, 0), sand),
        (9, tree, slice(95, 128), (7, -33), sand),
        (17, cloud, slice(60, 100), (2, -2), sky),
    ):
        shape = np.zeros(label.shape, bool)
        shape[:, columns] = draw(scene, scene)[1][:, columns] == thing
        found[np.roll(shape, shift, axis=(0, 1)) & (found == over)] = thing
    return found


def write_files(folder):
    for name, picture in example_files().items():
        write(folder, name, picture)


def write(folder, name, picture):
    image = Image.fromarray(picture)
    if picture.ndim == 2:
        # Class ids, in colours that can be looked at.
        image.putpalette(np.array(scenes.PALETTE, np.uint8).tobytes())
    image.save(folder / f"{name}.png")


def mscaflax(folder, *arguments):
    """Runs a command in a folder, with the shipped model."""
    print("$ mscaflax", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "mscaflax", *arguments], cwd=folder, check=True)


def read(folder, name):
    return np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))


def save(name, *columns):
    picture_grid(columns).save(PICTURES / f"{name}.png", "PNG", optimize=True)


def row(title, picture):
    """A Column of one picture; a label map [h, w] in its colours."""
    flat = picture.ndim == 2
    return Column(title, (CLASSES.colorize(picture) if flat else picture)[None], flat)


def shipped(folder, files):
    """Layout, exemplar, output and truth."""
    rows = []
    for layout, style in PAIRS:
        (_, label), (photo, photo_label) = draw(layout, layout), draw(style, style)
        for name, picture in (("one", label), ("other", photo), ("other_label", photo_label)):
            write(folder, name, picture)
        mscaflax(
            folder, "synthesize", "--label=one.png", "--exemplar=other.png",
            "--exemplar_label=other_label.png", "--output=picture.png",
        )  # fmt: skip
        truth, _ = draw(layout, style)
        rows.append((CLASSES.colorize(label), photo, read(folder, "picture"), truth))
    titles = ("label map", "exemplar", "output", "truth")
    columns = zip(titles, map(np.stack, zip(*rows, strict=True)), strict=True)
    save("shipped", *(Column(t, images, t == "label map") for t, images in columns))


def guess(folder, files):
    """The same picture with the photo's own label map, and with a guessed one."""
    shared = ("synthesize", "--label=layout.png", "--exemplar=style.png")
    mscaflax(folder, *shared, "--exemplar_label=style_label.png", "--output=picture.png")
    mscaflax(folder, *shared, "--output=guessed.png")
    save(
        "guess",
        row("exemplar", files["style"]),
        row("its label map", files["style_label"]),
        row("the guess", Synthesizer.pretrained("scenes64").segment(files["style"]).astype(np.uint8)),
        row("output with the map", read(folder, "picture")),
        row("with the guess", read(folder, "guessed")),
    )


def attention(folder, files):
    mscaflax(
        folder, "synthesize", "--label=layout.png", "--exemplar=style.png",
        "--exemplar_label=style_label.png", "--output=picture.png",
        f"--attention={PICTURES}/attention.png", "--attention_regions=4",
    )  # fmt: skip


def blend(folder, files):
    """A strip from one style to another, a ramp, and the sky of the one over the rest of the other."""
    shared = (
        "blend", "--label=layout.png", "--exemplar", "day.png", "night.png",
        "--exemplar_label", "day_label.png", "night_label.png",
    )  # fmt: skip
    mscaflax(folder, *shared, "--steps=4", "--output=strip.png")
    mscaflax(folder, *shared, "--ramp=horizontal", "--output=ramp.png")
    mscaflax(folder, *shared, "--classes=sky=1,sun=1,cloud=1", "--output=classes.png")
    rows = [
        [files["day"], files["night"], read(folder, "ramp"), read(folder, "classes")],
        np.split(read(folder, "strip"), 4, axis=1),
    ]
    titles = ("first exemplar; 0", "second exemplar; 1/3", "--ramp; 2/3", "--classes; 1")
    save("blend", *(Column(t, np.stack(c)) for t, *c in zip(titles, *rows, strict=True)))


def extrapolate(folder, files):
    mscaflax(
        folder, "extrapolate", "--photo=part.png", "--photo_label=part_label.png",
        "--label=larger.png", "--output=continued.png",
    )  # fmt: skip
    framed = np.full((*files["larger"].shape, 3), 255, np.uint8)
    framed[INSIDE] = files["part"]
    save(
        "extrapolate",
        row("photo", framed),
        row("larger label map", files["larger"]),
        row("photo continued", read(folder, "continued")),
    )


def edit(folder, files):
    mscaflax(
        folder, "edit", "--photo=photo.png", "--photo_label=photo_label.png",
        "--label=edited.png", "--output=changed.png",
    )  # fmt: skip
    save(
        "edit",
        row("photo", files["photo"]),
        row("its label map", files["photo_label"]),
        row("edited", files["edited"]),
        row("photo changed", read(folder, "changed")),
    )


MAKERS = {make.__name__: make for make in (shipped, guess, attention, blend, extrapolate, edit)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="*", metavar="NAME", help=f"of {', '.join(MAKERS)} (default: all)")
    parser.add_argument("--files", type=Path, metavar="DIR", help="draw what the commands take, and no more")
    args = parser.parse_args()
    if unknown := set(args.pictures) - set(MAKERS):
        parser.error(f"no picture {', '.join(sorted(unknown))}: choose of {', '.join(MAKERS)}")
    if args.files:
        args.files.mkdir(parents=True, exist_ok=True)
        write_files(args.files)
        return
    files = example_files()
    for name in args.pictures or MAKERS:
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder))
            MAKERS[name](Path(folder), files)


if __name__ == "__main__":
    main()
