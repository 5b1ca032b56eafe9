"""Images as numbers: 8-bit levels and floats in [-1, 1]."""

import numpy as np


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Rounds float images in [-1, 1] (values beyond are clipped) to uint8 of the same shape.

    uint8 input is returned as it is.

    Raises:
      ValueError: a value is not finite.
    """
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images
    if not np.isfinite(images).all():
        raise ValueError("the image holds values that are not finite")
    return np.rint(np.clip((images.astype(np.float64) + 1) * 127.5, 0, 255)).astype(np.uint8)


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 images as float32 in [-1, 1]; `to_uint8` undoes it exactly."""
    return (np.asarray(images, np.float32) / 127.5 - 1).astype(np.float32)
