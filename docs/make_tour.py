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
each is let through (γ).""",
    ),
    (CODE, """Image.fromarray(synthesizer.explain(target, photos[1], labels[1]).draw(count=4))"""),
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
