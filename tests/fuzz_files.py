"""Image files as they should not be, from a random generator."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from mscaflax.data import scenes

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
MODES = ("RGB", "L", "P", "RGBA", "CMYK", "1", "I;16", "LA")


def encoded(image, rng):
    """An image file in a random format and mode that goes with it."""
    for _ in range(20):
        buffer = io.BytesIO()
        try:
            image.convert(rng.choice(MODES)).save(buffer, rng.choice(FORMATS))
        except (OSError, ValueError, KeyError):
            continue
        return buffer.getvalue()
    return b""


def huge_png(rng):
    """A PNG that says it is huge and holds little."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = rng.choice([(2**31 - 1, 1), (60_000, 60_000), (0, 5), (1, 2**20), (20_000, 20_000)])
    header = struct.pack(">IIBBBBB", *size, 8, rng.choice([0, 2, 3, 6]), 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(2000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def is_image(data):
    try:
        Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        return False
    return True


def mutated(data, rng):
    """A file that is damaged, or another one altogether."""
    # The last of them reads the image: texts and bare pixels have the others alone.
    how = rng.randrange(8 if is_image(data) else 7)
    data = bytearray(data)
    if how == 0:
        return bytes(data[: rng.randrange(len(data) + 1)])
    if how == 1:
        for _ in range(rng.choice([1, 5, 100])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)
    if how == 2:
        place = rng.randrange(len(data))
        return bytes(data[:place]) + rng.randbytes(rng.randrange(200)) + bytes(data[place:])
    if how == 3:
        return rng.randbytes(rng.randrange(2000))
    if how == 4:
        return huge_png(rng)
    if how == 5:
        sides = rng.choice([1, 15, 17, 64]), rng.choice([1, 31, 128])
        return encoded(
            Image.fromarray(np.random.default_rng(rng.randrange(99)).integers(0, 256, (*sides, 3), np.uint8)),
            rng,
        )
    if how == 6:
        return rng.choice([b"", b"{", b"null", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"\0" * 100])
    return encoded(Image.open(io.BytesIO(bytes(data))), rng)


def originals():
    """The files of requests that are right, {name: bytes}.

    A layout, a part of its scene with its label map, and another photo and its label map; a large label map,
    and one that is a long strip.
    """
    image, label = scenes.render(*scenes.scene("test", 0), (64, 128))
    photo, photo_label = scenes.render(*scenes.scene("test", 1), (64, 128))
    part = np.s_[12:52, 20:100]
    arrays = {"layout": label, "part": image[part], "part_label": label[part]}
    arrays |= {"large": np.tile(label, (8, 4)), "strip": np.tile(label[:16], (1, 128))}
    files = {}
    for name, array in (arrays | {"photo": photo, "photo_label": photo_label}).items():
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        files[f"{name}.png"] = buffer.getvalue()
    return files
