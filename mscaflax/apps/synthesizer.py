"""From files or arrays to a picture: any label map, any photo, any size."""

from pathlib import Path

import numpy as np
from PIL import Image

from mscaflax.data.images import read_label_map, read_photo
from mscaflax.data.pixels import to_float, to_uint8
from mscaflax.errors import UserError
from mscaflax.nets.layers import MAX_SIDE

MAX_PIXELS = 4_194_304


class Synthesizer:
    """Makes pictures with a trained model.

    Example:
      >>> synthesizer = Synthesizer.from_workdir("runs/demo")
      >>> picture = synthesizer("layout.png", "photo.jpg", "photo_labels.png")
      >>> Image.fromarray(picture).save("picture.png")
    """

    def __init__(self, model):
        """`model`: a mscaflax.training.model.Model."""
        self.model = model

    @classmethod
    def from_workdir(cls, workdir, step=None):
        """Loads what `mscaflax train` left in `workdir`, at a step (None: the last).

        Raises:
          UserError: there is no model, or none of this step.
        """
        from mscaflax.training.model import load_model

        return cls(load_model(workdir, step))

    @property
    def classes(self):
        """The ClassTable whose ids and colours label maps are written in."""
        return self.model.classes

    def __call__(self, label, exemplar, exemplar_label, *, seed=0):
        """Synthesizes a picture with the layout of `label` in the style of `exemplar`.

        The exemplar is resized to the scale of the training patches, with legal sides (multiples of
        `network.size_multiple`). The label map keeps its size: it is padded to a
        legal one, the padding weighs nothing, and the output is cropped.

        Args:
          label: path of a label map (8-bit ids or the palette's colours), or int [h, w] in 0..C,
            C = unlabelled.
          exemplar: path of a photo, or uint8 [h', w', 3] RGB.
          exemplar_label: its label map, as `label`, of its size h' × w'.
          seed: of the texture noise, 0 .. 2^32-1; the same call gives the same picture.

        Returns:
          uint8 [h, w, 3] RGB.

        Raises:
          UserError: a file that cannot be read, a label outside the classes, sizes that do not fit, a model
            that has diverged.
        """
        if not 0 <= seed < 2**32:
            raise UserError(f"the seed {seed} is outside 0..{2**32 - 1}")
        label = self._label(label, "the label map")
        _check_size(label.shape)
        photo = self._photo(exemplar)
        photo_label = self._label(exemplar_label, "the exemplar's label map")
        if photo.shape[:2] != photo_label.shape:
            (h, w), (label_h, label_w) = photo.shape[:2], photo_label.shape
            raise UserError(
                f"the exemplar is {w}x{h} pixels (upright, as its EXIF data says), its label map "
                f"{label_w}x{label_h}: give a map of equal size"
            )
        photo, photo_label = self.legal_exemplar(photo, photo_label)
        padded, valid = pad_to_multiple(label, self.model.network.size_multiple, self.classes.num_classes)
        image = self.model.generate(
            padded[None], to_float(photo)[None], photo_label[None], seed, None if valid.all() else valid[None]
        )
        if not np.isfinite(image).all():
            raise UserError(
                "the output holds values that are not finite: the training of this model has diverged"
            )
        return to_uint8(image[0, : label.shape[0], : label.shape[1]])

    def legal_exemplar(self, photo, label):
        """Resizes an exemplar and its map to a legal size near the training scale.

        Args:
          photo: uint8 [h, w, 3].
          label: int [h, w].

        Returns:
          (uint8 [h', w', 3], antialiased; int32 [h', w'], nearest), h' and w' multiples of
          `network.size_multiple`. Things have the size that they had on average in the training patches: the
          mean patch of such a photo has `config.data.size` pixels a side.
        """
        multiple, data = self.model.network.size_multiple, self.model.config.data
        h, w = label.shape
        short, long = sorted((h, w))
        # Training saw a patch of this many pixels as one of data.size.
        patch = sum(data.side_range) / 2 * min(short, long / 2)
        factor = data.size / patch
        # A panorama's long side is cut at sixteen patches: squeezed rather than unbounded.
        size = [
            min(max(round(side * factor / multiple) * multiple, data.size), 16 * data.size) for side in (w, h)
        ]
        if size == [w, h]:
            return photo, label.astype(np.int32)
        resized = Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC)
        resized_label = Image.fromarray(label.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
        return np.asarray(resized), np.asarray(resized_label).astype(np.int32)

    def _label(self, label, what):
        if isinstance(label, (str, Path)):
            label = read_label_map(label, self.classes)
        label = np.asarray(label)
        if label.ndim != 2 or not np.issubdtype(label.dtype, np.integer) or 0 in label.shape:
            raise UserError(f"{what} must be integers [h, w], got {label.dtype} {list(label.shape)}")
        if label.min() < 0 or label.max() > self.classes.num_classes:
            raise UserError(
                f"{what} holds {label.min()}..{label.max()}, allowed are 0..{self.classes.num_classes} "
                f"({self.classes.num_classes} = unlabelled)"
            )
        return label

    def _photo(self, photo):
        if isinstance(photo, (str, Path)):
            photo = read_photo(photo)
        photo = np.asarray(photo)
        if photo.ndim != 3 or photo.shape[-1] != 3 or photo.dtype != np.uint8 or 0 in photo.shape:
            raise UserError(f"the exemplar must be uint8 [h, w, 3], got {photo.dtype} {list(photo.shape)}")
        return photo


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


def _check_size(shape):
    if shape[0] * shape[1] > MAX_PIXELS or max(shape) > MAX_SIDE:
        raise UserError(
            f"the label map has {shape[1]}x{shape[0]} pixels: make it smaller, at most {MAX_PIXELS:,} in all "
            f"and {MAX_SIDE:,} a side"
        )
