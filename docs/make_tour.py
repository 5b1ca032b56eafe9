"""Writes docs/tour.ipynb and runs it, so that it holds its pictures: python docs/make_tour.py

The cells stand here, where they can be read and reviewed; the notebook is for those who look.
"""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "tour.ipynb"
TEXT, CODE = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell

CELLS = (
    (
        TEXT,
        """# A tour of mscaflax

A **label map** says what is where, an **exemplar** photo of another scene how it should look. This notebook
uses the model that ships with the package; it knows the embedded scenes, 64 pixels high. It runs in less than
two minutes on a laptop.""",
    ),
    (
        CODE,
        """import numpy as np
from PIL import Image

from mscaflax import Synthesizer
from mscaflax.data import scenes

synthesizer = Synthesizer.pretrained("scenes64")


def show(*pictures, height=160):
    \"\"\"Pictures side by side, enlarged without smoothing.\"\"\"
    gap = [(0, 0), (0, 2), (0, 0)]
    row = np.concatenate([np.pad(picture, gap, constant_values=255) for picture in pictures], axis=1)
    size = round(row.shape[1] * height / row.shape[0]), height
    return Image.fromarray(row).resize(size, Image.Resampling.NEAREST)""",
    ),
    (
        TEXT,
        """## Scenes that training never saw

`scenes.render` draws a layout in a style: a photo and its label map.""",
    ),
    (
        CODE,
        """layouts, styles = zip(*(scenes.scene("test", index) for index in range(3)), strict=True)
rendered = [scenes.render(layout, style, (64, 128)) for layout, style in zip(layouts, styles, strict=True)]
photos, labels = zip(*rendered, strict=True)
display(show(*(synthesizer.classes.colorize(label) for label in labels)), show(*photos))""",
    ),
    (
        TEXT,
        """## The layout of one, the style of another

Here the right answer is known: the first layout, drawn in the style of the others. From left to right:
exemplar, output, truth.""",
    ),
    (
        CODE,
        """target = labels[0]
for index in (1, 2):
    truth, _ = scenes.render(layouts[0], styles[index], (64, 128))
    display(show(photos[index], synthesizer(target, photos[index], labels[index]), truth))""",
    ),
    (
        TEXT,
        """## Which part feeds which

The attention: the regions that the network finds in the exemplar (α), where they land (β), and how much of
each is let through (γ). A colour is the same region in both scenes: trees feed trees.""",
    ),
    (CODE, """Image.fromarray(synthesizer.explain(labels[1], photos[2], labels[2]).draw(count=4))"""),
    (
        TEXT,
        """## Between two styles, and beyond

0 is the first exemplar, 1 the second; below 0 and above 1 the way goes on.""",
    ),
    (
        CODE,
        """from mscaflax.apps.blend import Blender, ramp
from mscaflax.apps.inputs import read_layout

blender = Blender(
    synthesizer.model,
    read_layout(synthesizer.model, target),
    [synthesizer.read_exemplar(photos[index], labels[index]) for index in (1, 2)],
)
show(*blender.path(5, begin=-0.25, end=1.25), height=96)""",
    ),
    (
        TEXT,
        "From left to right in one picture; and the sky of the second exemplar above all else of the first:",
    ),
    (CODE, """show(blender.mix_places(ramp(target.shape)), blender.mix_classes({"sky": 1, "cloud": 1}))"""),
    (
        TEXT,
        """## A photo without a label map

The segmenter beside the model guesses it. The true map, the guess, and what is made with each:""",
    ),
    (
        CODE,
        """guess = synthesizer.segment(photos[2])
print(f"{(guess == labels[2]).mean():.0%} of the pixels are right")
maps = [synthesizer.classes.colorize(label) for label in (labels[2], guess)]
show(*maps, synthesizer(target, photos[2], labels[2]), synthesizer(target, photos[2]), height=120)""",
    ),
    (
        TEXT,
        """## Edit a photo

Change its label map; what the change does not touch stays bit for bit. Here the road goes, a cloud comes.""",
    ),
    (
        CODE,
        """photo, label = scenes.render(*scenes.scene("test", 38), (64, 128))
number = scenes.CLASS_NAMES.index
edited = np.where(label == number("road"), number("sand"), label)
y, x = np.mgrid[:64, :128]
edited[((x - 92) / 17) ** 2 + ((y - 12) / 4) ** 2 < 1 + np.sin(x / 3) / 4] = number("cloud")
maps = [synthesizer.classes.colorize(found) for found in (label, edited)]
show(photo, *maps, synthesizer.edit(photo, label, edited), height=120)""",
    ),
    (
        TEXT,
        """## Continue a photo

A larger label map says what lies around it.""",
    ),
    (
        CODE,
        """whole, layout = scenes.render(*scenes.scene("test", 11), (96, 192))
part = np.s_[16:80, 32:160]
framed = np.full_like(whole, 255)
framed[part] = whole[part]
continued = synthesizer.extrapolate(whole[part], layout[part], layout)
show(framed, synthesizer.classes.colorize(layout), continued)""",
    ),
    (
        TEXT,
        """## One file to hand on

It runs without this package too, by JAX alone ([deploy.md](deploy.md)). It takes batches, and makes the same
pictures.""",
    ),
    (
        CODE,
        """import tempfile

from mscaflax import load_exported
from mscaflax.apps.export import export_model

with tempfile.TemporaryDirectory() as folder:
    print(f"{export_model(synthesizer.model, f'{folder}/scenes64.zip') / 1e6:.0f} MB")
    generate = load_exported(f"{folder}/scenes64.zip")
batch = generate(np.stack([target, labels[2]]), np.stack([photos[1]] * 2), np.stack([labels[1]] * 2))
show(*((batch + 1) * 127.5).round().clip(0, 255).astype(np.uint8))""",
    ),
)


def notebook():
    """The notebook without its outputs."""
    cells = [make(text, id=f"cell-{index}") for index, (make, text) in enumerate(CELLS)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def executed():
    """The notebook with its outputs; raises nbclient's CellExecutionError where a cell fails."""
    made = notebook()
    NotebookClient(made, timeout=300, kernel_name="python3").execute()
    for cell in made.cells:
        # When each cell ran is of no use to a reader.
        cell.metadata.pop("execution", None)
    return made


if __name__ == "__main__":
    nbformat.write(executed(), NOTEBOOK)
