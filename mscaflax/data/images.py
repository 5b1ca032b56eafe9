"""Photos and label maps from files, in every form in which people have them. Pillow and numpy only.

Photos become 8-bit RGB, upright:
  - the EXIF orientation is applied, so that a photo is read as viewers show it;
  - transparency is laid over white;
  - 16-bit samples are scaled to 8 bits, grayscale is repeated in the three channels;
  - CMYK is multiplied out, (255 - C)(255 - K) / 255 and so on, without a colour profile; a CMYK JPEG holds
    inverted values if it carries Adobe's marker, as Adobe's programs write it, plain ones otherwise;
  - colour profiles are ignored.

Label maps hold a class id for each pixel, in upright coordinates: they are never rotated, and their size is
compared with that of the upright photo. They may be
  - 8-bit or 16-bit grayscale: the value is the id;
  - palettised, as many tools write them: the index is the id, whatever colours the palette shows; but a map
    that shows the dataset's colours under other indices was reordered by its editor, and is refused;
  - RGB in the colours of the dataset's palette.
Where there is an alpha channel, a transparent pixel is unlabelled.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mscaflax.data.classes import ClassTable
from mscaflax.errors import UserError
from mscaflax.files import expanded

_EXIF_ORIENTATION = 0x0112
# What undoes each EXIF orientation (Exif 2.32, section 4.6.4); 1 and unknown values mean upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
_GRAY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
# Pillow stretches grayscale of few bits to 0..255; ids must not be stretched.
_STRETCH = {2: 85, 4: 17}


@dataclass(frozen=True)
class Limits:
    """What is asked of an image's header before anything is decoded.

    Attributes:
        pixels: at most so many, width times height.
        formats: Pillow's names of the formats that may be tried; None for all that it knows.
    """

    pixels: int
    formats: Sequence[str] | None = None


def _open(data: bytes, limits: Limits | None) -> Image.Image:
    if limits is None:
        return Image.open(io.BytesIO(data))
    with warnings.catch_warnings():
        # The limit below is stricter than the size at which Pillow warns.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data), formats=limits.formats)
    if image.width * image.height > limits.pixels:
        raise Image.DecompressionBombError(
            f"{image.width}x{image.height} pixels, and at most {limits.pixels:,} are allowed: make it smaller"
        )
    return image


def _load(
    source: str | Path | bytes, what: str, limits: Limits | None = None
) -> tuple[Image.Image, bytes, str]:
    """Decodes an image fully; returns it, its file's bytes, and what to call it in messages."""
    shown = what if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else expanded(source).read_bytes()
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror or error}") from None
    if not data:
        raise UserError(f"{shown}: the file is empty")
    try:
        image = _open(data, limits)
        image.load()
        if image.mode in ("P", "PA") and image.palette is None:
            raise ValueError("its palette is missing")
    except UnidentifiedImageError:
        known = f" ({', '.join(limits.formats)})" if limits and limits.formats else ""
        raise UserError(f"{shown}: not an image in a known format{known}") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{shown}: too large to be read: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise nearly every type there is
        raise UserError(f"{shown}: truncated or damaged: {' '.join(str(error).split())}") from None
    return image, data, shown


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        # A damaged EXIF block says nothing about the orientation, and the pixels are fine.
        return 1


def read_photo(source: str | Path | bytes, limits: Limits | None = None) -> np.ndarray:
    """Reads a photo as 8-bit RGB, upright; the module's text says how other forms are read.

    Args:
        source: a path, or the bytes of an image file.
        limits: for files of unknown origin.

    Returns:
        uint8 [h, w, 3].

    Raises:
        UserError: the file is missing, truncated, no image, beyond the limits, or in a colour mode without a
            fixed range. The message begins with the file's path.
    """
    image, _, shown = _load(source, "the photo", limits)
    return _to_rgb(image, shown)


def photo_record(path: str | Path) -> tuple[bytes, tuple[int, int]]:
    """Reads and checks a photo for storage in a dataset.

    A JPEG that is RGB and upright is returned byte for byte, since compressing it again would lose quality;
    every other photo is encoded as an RGB PNG, which loses nothing.

    Returns:
        The bytes of a JPEG or PNG file, and the size (h, w) of the upright photo.

    Raises:
        UserError: as `read_photo`.
    """
    image, data, shown = _load(path, "the photo")
    if image.format == "JPEG" and image.mode == "RGB" and _orientation(image) not in _UPRIGHT:
        return data, (image.height, image.width)
    rgb = _to_rgb(image, shown)
    return encode_png(rgb), rgb.shape[:2]


def encode_png(array: np.ndarray) -> bytes:
    """The bytes of a PNG file of uint8 [h, w, 3] (RGB) or uint8 [h, w] (grayscale)."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def _to_rgb(image: Image.Image, shown: str) -> np.ndarray:
    # Pillow inverts every CMYK JPEG as if it came from Adobe, and forgets the format when it rotates.
    plain_cmyk = image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info
    orientation = _orientation(image)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    if image.mode in _GRAY_16:
        gray = (np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535
        return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=-1)
    if plain_cmyk:
        image = Image.frombytes("CMYK", image.size, (255 - np.asarray(image)).tobytes())
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, layer).convert("RGB"))
    if image.mode in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"):
        return np.asarray(image.convert("RGB"))
    raise UserError(f"{shown}: colour mode {image.mode!r} has no fixed range: save the photo as 8-bit RGB")


def read_label_map(
    source: str | Path | bytes, classes: ClassTable, limits: Limits | None = None
) -> np.ndarray:
    """Reads a label map; the module's text says which forms it may have.

    Args:
        source: a path, or the bytes of an image file in a lossless format.
        classes: the classes whose ids, or colours, the map holds; `classes.ignore` means unlabelled.
        limits: for files of unknown origin.

    Returns:
        int32 [h, w] in 0..C, C = unlabelled.

    Raises:
        UserError: the file is missing, truncated, lossy or beyond the limits, or holds an id or a colour that
            is not among the classes. The message begins with the path and says which value, where, and which
            are allowed.
    """
    image, data, shown = _load(source, "the label map", limits)
    if image.format in _LOSSY:
        raise UserError(f"{shown}: {image.format} changes label ids when it compresses: save the map as PNG")
    # Bit depth and colour type stand at bytes 24 and 25 of a PNG (header chunk, PNG specification 11.2.1).
    depth, colour_type = data[24:26] if image.format == "PNG" else (8, None)
    if depth == 16 and colour_type != 0:
        # Pillow keeps the upper 8 bits of these, in which small ids are all zero.
        raise UserError(f"{shown}: 16 bits with colour or alpha: save the map as an 8-bit grayscale PNG")
    if image.mode in ("RGB", "RGBA"):
        return _ids_of_colours(np.asarray(image), classes, shown)
    if image.mode not in ("1", "L", "LA", "P", "PA", "I", *_GRAY_16):
        raise UserError(f"{shown}: colour mode {image.mode!r}: save the label map as an 8-bit grayscale PNG")
    values = np.asarray(image)
    transparent = values[..., 1] == 0 if values.ndim == 3 else False
    values = (values[..., 0] if values.ndim == 3 else values).astype(np.int32)
    if colour_type == 0 and image.mode == "L":
        values //= _STRETCH.get(depth, 1)
    if image.mode in ("P", "PA"):
        _check_order(image, values, classes, shown)
    values = np.where(transparent, np.int32(classes.ignore), values)
    bad = (values < 0) | ((values >= classes.num_classes) & (values != classes.ignore))
    if bad.any():
        raise UserError(f"{shown}: label id {_first(values, bad)}; allowed are {classes.allowed}")
    return np.where(values == classes.ignore, np.int32(classes.num_classes), values)


def _ids_of_colours(pixels: np.ndarray, classes: ClassTable, shown: str) -> np.ndarray:
    weights = np.array([1 << 16, 1 << 8, 1])
    codes = pixels[..., :3] @ weights
    palette = classes.palette_array @ weights
    order = np.argsort(palette)
    nearest = np.searchsorted(palette, codes, sorter=order).clip(max=len(palette) - 1)
    ids = order[nearest].astype(np.int32)
    bad = palette[ids] != codes
    if pixels.shape[-1] == 4:
        transparent = pixels[..., 3] == 0
        ids[transparent] = classes.num_classes
        bad &= ~transparent
    if bad.any():
        y, x = np.argwhere(bad)[0]
        raise UserError(
            f"{shown}: colour {pixels[y, x, :3].tolist()} at x={x}, y={y} ({bad.sum()} pixels) is not in the "
            f"palette; allowed are the colours of its {classes.num_classes} classes, "
            f"and {classes.palette_array[-1].tolist()} for unlabelled"
        )
    ids[ids == classes.ignore] = classes.num_classes
    return ids


def _check_order(image: Image.Image, indices: np.ndarray, classes: ClassTable, shown: str) -> None:
    """Raises UserError if every index in use shows a colour of the dataset, but not each that of its id."""
    used = np.unique(indices)
    if classes.ignore >= classes.num_classes:
        # No editor counts so far; where the palette has no entry of its own, it shows the padding's black.
        used = used[used != classes.ignore]
    shades = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    known = {tuple(colour): id for id, colour in enumerate(classes.palette_array.tolist())}
    ids = [known.get(tuple(shades[index].tolist())) if index < len(shades) else None for index in used]
    if None in ids:
        return
    for index, id in zip(used.tolist(), ids, strict=True):
        if id != index and (index, id) != (classes.ignore, classes.num_classes):
            names = (*classes.names, "unlabelled")
            raise UserError(
                f"{shown}: index {index} shows the colour of {names[id]} ({id}), so the indices were "
                "reordered and are no ids: save the map as RGB in the classes' colours, or as gray ids"
            )


def _first(values: np.ndarray, bad: np.ndarray) -> str:
    """Names the first bad value, where it is, and the others."""
    y, x = np.argwhere(bad)[0]
    others = [value for value in np.unique(values[bad]).tolist() if value != values[y, x]]
    more = f", and {', '.join(map(str, others[:5]))}{', ...' if len(others) > 5 else ''}" if others else ""
    return f"{values[y, x]} at x={x}, y={y} ({bad.sum()} pixels in all{more})"
