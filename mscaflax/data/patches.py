"""Patches of a photo as the pipeline makes them: decoding, cropping and resizing by TensorFlow."""

import struct
from typing import Any

import numpy as np

from mscaflax.data.tensorflow import import_tensorflow
from mscaflax.errors import UserError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_size(png: bytes) -> tuple[int, int]:
    """(height, width) of an encoded label map, from its header.

    Raises:
      UserError: it is no PNG.
    """
    if png[:8] != _PNG_SIGNATURE or len(png) < 24:
        raise UserError("its label map is no PNG: prepare the dataset again")
    width, height = struct.unpack(">II", png[16:24])
    return height, width


def decode(image: Any, label: Any) -> tuple[Any, Any]:
    """Encoded photo and map: uint8 tensors [h, w, 3] and [h, w, 1]."""
    tf = import_tensorflow()
    # decode_jpeg reads PNG as well; the accurate transform is the one other decoders use.
    image = tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")
    return image, tf.io.decode_png(label, channels=1)


def cut_patch(image: Any, label: Any, box: Any, size: int, mirrored: Any) -> tuple[Any, Any]:
    """Cuts one patch: TensorFlow ops.

    Args:
      image, label: uint8 [h, w, 3] and [h, w, 1].
      box: int32 [3], (top, left, side) in pixels.
      size: side of the patch.
      mirrored: bool scalar, whether it is flipped left to right.

    Returns:
      float32 [size, size, 3] in [-1, 1], by antialiased bicubic interpolation, and int32 [size, size], by
      taking the nearest pixel centre.
    """
    tf = import_tensorflow()
    photo = _cut_photo(image, box, size)
    classes = tf.image.resize(tf.slice(label, *_corner_and_extent(box)), [size, size], "nearest")
    photo, classes = tf.cond(mirrored, lambda: (photo[:, ::-1], classes[:, ::-1]), lambda: (photo, classes))
    photo, classes = tf.ensure_shape(photo, [size, size, 3]), tf.ensure_shape(classes, [size, size, 1])
    return photo, tf.cast(classes[..., 0], tf.int32)


def cut_photo(image: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The photo of `cut_patch`, not mirrored, outside of a pipeline.

    Args:
      image: uint8 [h, w, 3].
      box: int [3], (top, left, side) in pixels.
      size: side of the patch.

    Returns:
      float32 [size, size, 3] in [-1, 1].
    """
    tf = import_tensorflow()
    return _cut_photo(tf.constant(image), tf.constant(box, tf.int32), size).numpy()


def _corner_and_extent(box: Any) -> tuple[Any, Any]:
    tf = import_tensorflow()
    top, left, side = box[0], box[1], box[2]
    return tf.stack([top, left, 0]), tf.stack([side, side, -1])


def _cut_photo(image: Any, box: Any, size: int) -> Any:
    tf = import_tensorflow()
    # Bicubic, since patches may have to grow as well as shrink; it overshoots at edges.
    square = tf.slice(image, *_corner_and_extent(box))
    photo = tf.image.resize(square, [size, size], "bicubic", antialias=True)
    return tf.clip_by_value(photo / 127.5 - 1, -1, 1)
