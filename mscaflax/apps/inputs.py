"""What users give, read and checked: a layout to fill, exemplars to take the style from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mscaflax.data.images import read_label_map, read_photo
from mscaflax.data.pixels import to_float
from mscaflax.errors import UserError
from mscaflax.nets.layers import MAX_SIDE

MAX_PIXELS = 4_194_304


@dataclass(frozen=True)
class Layout:
    """A target's label map, padded at the bottom and the right to a size that the network takes.

    Attributes:
      label: int32 [h', w'] in 0..C; padding holds C.
      valid: bool [h', w'], True on content; None where nothing is padded.
      size: (h, w) of the content.
    """

    label: np.ndarray
    valid: np.ndarray | None
    size: tuple[int, int]

    def crop(self, image):
        """The content of an image [h', w', ...] that is laid out as `label`."""
        return image[: self.size[0], : self.size[1]]


@dataclass(frozen=True)
class Exemplar:
    """A photo and its label map, resized to the scale of the training patches.

    Attributes:
      photo: uint8 [h', w', 3], both sides legal.
      label: int32 [h', w'] in 0..C.
      guessed: whether a segmenter gave the label map.
    """

    photo: np.ndarray
    label: np.ndarray
    guessed: bool = False

    @property
    def image(self):
        """The photo as the network takes it: float32 [h', w', 3] in [-1, 1]."""
        return to_float(self.photo)


def read_layout(model, label):
    """A Layout from a path (8-bit ids or the palette's colours) or int [h, w] in 0..C, C = unlabelled.

    Raises:
      UserError: a file that cannot be read, a label outside the classes, too many pixels.
    """
    label = check_label(label, "the label map", model.classes)
    check_size(label, "the label map")
    padded, valid = pad_to_multiple(label, model.network.size_multiple, model.classes.num_classes)
    return Layout(padded, None if valid.all() else valid, label.shape)


def read_exemplar(model, photo, label, segmenter=None):
    """An Exemplar from a photo (path, or uint8 [h, w, 3] RGB) and its label map (as `read_layout`'s).

    Without a label map (None), `segmenter`, a mscaflax.training.segmenter.Segmenter, gives it.

    Raises:
      UserError: a file that cannot be read, a label outside the classes, sizes that differ.
    """
    photo = check_photo(photo)
    if label is None:
        if segmenter is None:
            raise UserError("the exemplar has no label map: give one, or a segmenter that guesses it")
        photo = resize_photo(photo, legal_size(model, photo.shape[:2]))
        return Exemplar(photo, segmenter.predict(to_float(photo)[None])[0], guessed=True)
    label = check_label(label, "the exemplar's label map", model.classes)
    if photo.shape[:2] != label.shape:
        (h, w), (label_h, label_w) = photo.shape[:2], label.shape
        raise UserError(
            f"the exemplar is {w}x{h} pixels (upright, as its EXIF data says), its label map "
            f"{label_w}x{label_h}: give a map of equal size"
        )
    return Exemplar(*legal_exemplar(model, photo, label))


def segment_photo(model, segmenter, photo):
    """The label map of a photo, uint8 [h, w, 3]: int32 [h, w] in 0..C-1, found at the training scale."""
    h, w = photo.shape[:2]
    small = resize_photo(photo, legal_size(model, (h, w)))
    return resize_label(segmenter.predict(to_float(small)[None])[0], (h, w))


def check_label(label, what, classes):
    """A label map as an integer array [h, w] in 0..C; `what` names it in the UserErrors."""
    if isinstance(label, (str, Path)):
        label = read_label_map(label, classes)
    label = np.asarray(label)
    if label.ndim != 2 or not np.issubdtype(label.dtype, np.integer) or 0 in label.shape:
        raise UserError(f"{what} must be integers [h, w], got {label.dtype} {list(label.shape)}")
    if label.min() < 0 or label.max() > classes.num_classes:
        raise UserError(
            f"{what} holds {label.min()}..{label.max()}, allowed are 0..{classes.num_classes} "
            f"({classes.num_classes} = unlabelled)"
        )
    return label


def check_size(label, what):
    """Raises UserError where a picture of a label map's size would be too large; `what` names the map."""
    h, w = label.shape
    if h * w > MAX_PIXELS or max(h, w) > MAX_SIDE:
        raise UserError(
            f"{what} has {w}x{h} pixels: make it smaller, at most {MAX_PIXELS:,} in all "
            f"and {MAX_SIDE:,} a side"
        )


def check_photo(photo, what="the exemplar"):
    """A photo as uint8 [h, w, 3]; `what` names it in the UserErrors."""
    if isinstance(photo, (str, Path)):
        photo = read_photo(photo)
    photo = np.asarray(photo)
    if photo.ndim != 3 or photo.shape[-1] != 3 or photo.dtype != np.uint8 or 0 in photo.shape:
        raise UserError(f"{what} must be uint8 [h, w, 3], got {photo.dtype} {list(photo.shape)}")
    return photo


def legal_exemplar(model, photo, label):
    """Resizes an exemplar and its map to a legal size near the training scale.

    Args:
      model: a Model.
      photo: uint8 [h, w, 3].
      label: int [h, w].

    Returns:
      (uint8 [h', w', 3], antialiased; int32 [h', w'], nearest), of the `legal_size`.
    """
    size = legal_size(model, label.shape)
    return resize_photo(photo, size), resize_label(label, size)


def legal_size(model, size):
    """The size at which a photo enters the network.

    Things then have the size that they had on average in the training patches: the mean patch of such a photo
    has `config.data.size` pixels a side.

    Args:
      model: a Model.
      size: (h, w) of the photo.

    Returns:
      (h', w'), multiples of `network.size_multiple`.
    """
    multiple, data = model.network.size_multiple, model.config.data
    h, w = size
    short, long = sorted((h, w))
    # Training saw a patch of this many pixels as one of data.size.
    patch = sum(data.side_range) / 2 * min(short, long / 2)
    factor = data.size / patch
    # A panorama's long side is cut at sixteen patches: squeezed rather than unbounded.
    legal = (min(max(round(side * factor / multiple) * multiple, data.size), 16 * data.size) for side in size)
    return tuple(legal)


def resize_photo(photo, size):
    """uint8 [h, w, 3] at another (h', w'), antialiased bicubic."""
    if photo.shape[:2] == tuple(size):
        return photo
    return np.asarray(Image.fromarray(photo).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def resize_label(label, size):
    """int [h, w] in 0..255 at another (h', w'), int32, by the nearest pixel centre."""
    if label.shape == tuple(size):
        return label.astype(np.int32)
    resized = Image.fromarray(label.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(resized).astype(np.int32)


def pad_to_multiple(label, multiple, fill):
    """Pads a label map at the bottom and the right.

    Args:
      label: int [h, w].
      multiple: sides become multiples of it, at least twice it.
      fill: what padding holds.

    Returns:
      (int32 [h', w'], bool [h', w'], True on content).
    """
    h, w = label.shape
    padding = [(0, max(-side % multiple, 2 * multiple - side)) for side in (h, w)]
    padded = np.pad(label.astype(np.int32), padding, constant_values=fill)
    return padded, np.pad(np.ones((h, w), bool), padding)
