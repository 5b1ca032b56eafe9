"""Files that the studio refuses, each with one line."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def header_only(width, height):
    """A PNG that says it has so many pixels, and holds none."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def one_tile(side, tile):
    """A gray TIFF of side x side pixels, which is decoded as one tile of tile x tile."""
    data = zlib.compress(bytes(tile * tile), 9)
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 325: len(data)}
    entries = sorted((tags | {324: 8 + 2 + 12 * (len(tags) + 1) + 4}).items())
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + b"\0\0\0\0" + data


BLACK = np.zeros((64, 128, 3), np.uint8)
GRAY = np.zeros((64, 128), np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 128, 3)).astype(np.uint8)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"


@pytest.mark.parametrize(
    ("path", "files", "message"),
    [
        ("exemplar", {"photo": b"hello"}, "the photo: not an image in a known format"),
        ("exemplar", {"photo": b""}, "the photo: the file is empty"),
        ("exemplar", {"photo": EPS}, "not an image in a known format (PNG"),
        ("exemplar", {"photo": png(NOISE)[:9000]}, "truncated or damaged"),
        ("exemplar", {"photo": header_only(30000, 30000)}, "too large to be read"),
        ("exemplar", {"photo": header_only(6000, 6000)}, "at most 25,000,000"),
        ("exemplar", {"photo": header_only(9000, 10000)}, "at most 25,000,000"),
        ("exemplar", {"photo": one_tile(64, 5120)}, "not an image in a known format"),
        ("layout", {"label": one_tile(64, 5120)}, "not an image in a known format"),
        ("exemplar", {"label": png(GRAY)}, "lacks the file 'photo'"),
        ("exemplar", {"photo": (None, "text")}, "lacks the file 'photo'"),
        ("exemplar", {"photo": png(BLACK), "label": png(GRAY[:60])}, "128x64 pixels"),
        ("exemplar", {"photo": png(BLACK), "label": png(GRAY + 99)}, "label id 99"),
        ("layout", {"label": png(GRAY + 13)}, "label id 13"),
        ("layout", {"label": png(BLACK + 1)}, "not in the palette"),
        ("layout", {"label": header_only(3000, 3000)}, "at most 4,194,304"),
        ("layout", {"photo": png(GRAY)}, "lacks the file 'label'"),
    ],
)
def test_wrong_files_get_one_line(path, files, message, client):
    response = client.post(f"/api/{path}", files=files)
    assert response.status_code == 422, response.text
    line = response.json()["error"]
    assert message in line and "\n" not in line and "Traceback" not in response.text


def test_the_tiff_is_refused_for_its_kind_not_for_damage():
    image = Image.open(io.BytesIO(one_tile(64, 128)))
    assert image.size == (64, 64) and image.getextrema() == (0, 0)
