"""Ready-made layouts and exemplars: scenes of the package, or photos of the dataset's validation split."""

import logging
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mscaflax.data import scenes
from mscaflax.errors import UserError

# Scenes of the test split, which no training saw: five kinds of layout, and styles far apart.
_LAYOUTS = (3, 2, 7, 4, 5, 26, 24, 29)
_EXEMPLARS = (6, 22, 16, 7, 37, 26, 20, 38)
_PHOTOS = 8

_LOG = logging.getLogger("mscaflax.studio")

_SEASONS = ("spring", "summer", "autumn", "winter")
_TIMES = (
    (0.2, "night"),
    (0.3, "sunrise"),
    (0.45, "morning"),
    (0.55, "noon"),
    (0.7, "afternoon"),
    (0.8, "sunset"),
)


@dataclass(frozen=True)
class Example:
    """A photo with its label map.

    Attributes:
      name: what it shows, in a few words.
      photo: uint8 [h, w, 3] RGB.
      label: int32 [h, w] in 0..C.
    """

    name: str
    photo: np.ndarray
    label: np.ndarray


def load_examples(model):
    """What there is for a Model: ([Example] for layouts, [Example] for exemplars); empty where nothing is.

    Scenes are drawn if the model's classes are theirs. Else the validation split is opened, which loads
    TensorFlow.
    """
    if model.classes.names == scenes.CLASS_NAMES:
        return [_scene(i, style=False) for i in _LAYOUTS], [_scene(i, style=True) for i in _EXEMPLARS]
    photos = _photos(model.config.data, model.classes)
    return photos, photos


def style_name(style):
    """A scene's style in words: "autumn sunset, fog"."""
    time = next((name for end, name in _TIMES if style.time < end), "night")
    weather = "fog" if style.haze > 0.5 else "clouds" if style.overcast > 0.7 else ""
    return f"{_SEASONS[int(style.season) % 4]} {time}" + (f", {weather}" if weather else "")


def fit_layout(label, size):
    """The largest centred part of a label map that has the shape of `size`, at that size.

    Args:
      label: int [h, w] in 0..255.
      size: (h', w').

    Returns:
      uint8 [h', w'], by the nearest pixel: ids stay ids.
    """
    (h, w), (to_h, to_w) = label.shape, size
    cut_h, cut_w = min(h, max(1, round(w * to_h / to_w))), min(w, max(1, round(h * to_w / to_h)))
    top, left = (h - cut_h) // 2, (w - cut_w) // 2
    part = Image.fromarray(label[top : top + cut_h, left : left + cut_w].astype(np.uint8))
    return np.asarray(part.resize((to_w, to_h), Image.Resampling.NEAREST))


def closest_size(sizes, size):
    """Of some (h, w), the one whose shape, then whose area, is closest to that of `size`."""
    h, w = size

    def distance(other):
        shape = abs(np.log(other[0] / other[1]) - np.log(h / w))
        return round(float(shape), 6), abs(np.log(other[0] * other[1]) - np.log(h * w))

    return min(sizes, key=distance)


def _scene(index, style):
    layout, look = scenes.scene("test", index)
    photo, label = scenes.render(layout, look)
    name = f"{layout.kind}, {style_name(look)}" if style else layout.kind
    return Example(name, photo, label.astype(np.int32))


def _photos(data, classes):
    from mscaflax.data.classes import ClassTable
    from mscaflax.data.datasets import open_dataset
    from mscaflax.data.images import read_label_map, read_photo

    try:
        dataset = open_dataset(data.name, data.data_dir or None)
        source = dataset.source(data.val_split)
    except UserError:
        return []
    if dataset.classes.names != classes.names:
        _LOG.warning("no examples: the dataset %s at hand has other classes than the model", data.name)
        return []
    # In a prepared dataset the id C means unlabelled, whatever it was in the files.
    stored = ClassTable(classes.names, classes.palette, classes.num_classes)
    found = []
    for index in np.unique(np.linspace(0, len(source) - 1, min(_PHOTOS, len(source))).astype(int)):
        record = source[int(index)]
        try:
            photo, label = read_photo(record["image"]), read_label_map(record["label"], stored)
            if photo.shape[:2] != label.shape:
                raise UserError(f"its photo is {photo.shape[:2]}, its label map {label.shape}")
        except UserError as error:
            _LOG.warning("an example is left out: %s: %s", record["name"], error)
            continue
        found.append(Example(record["name"], photo, label))
    return found
