import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from mscaflax.data.classes import ClassTable
from mscaflax.data.images import encode_png, photo_record, read_label_map, read_photo
from mscaflax.errors import UserError

GRADIENT = np.linspace(0, 255, 32).astype(np.uint8)[None].repeat(24, 0)


def saved(path, array, mode=None, **options):
    if mode is None:
        image = Image.fromarray(array)
    else:
        image = Image.frombytes(mode, array.shape[1::-1], array.tobytes())
    image.save(path, **options)
    return path


def raw_png(path, samples, depth, colour_type):
    """Writes a PNG chunk by chunk, for forms that Pillow reads but does not write; samples [h, w, ...]."""
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if depth == 16:
        rows = rows.astype(">u2").view(np.uint8)
    elif depth < 8:
        bits = (rows[..., None] >> np.arange(depth)[::-1]) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    lines = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in rows)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def without_adobe_marker(data):
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


# Photos.


def test_rgb_png_and_bytes(tmp_path, photo):
    array = photo(1)
    path = saved(tmp_path / "a.png", array)
    assert read_photo(path).dtype == np.uint8
    np.testing.assert_array_equal(read_photo(path), array)
    np.testing.assert_array_equal(read_photo(path.read_bytes()), array)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_grayscale_is_repeated(tmp_path, suffix):
    got = read_photo(saved(tmp_path / f"a.{suffix}", GRADIENT))
    np.testing.assert_allclose(got.astype(int), GRADIENT[..., None].repeat(3, -1), atol=2)


def test_one_bit(tmp_path):
    bits = GRADIENT > 127
    Image.fromarray(bits).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png")[..., 1], bits * 255)


def test_transparency_is_laid_over_white(tmp_path, photo):
    colour = photo(2)
    expected = colour * (GRADIENT[..., None] / 255) + 255 - GRADIENT[..., None].astype(float)
    rgba = np.concatenate([colour, GRADIENT[..., None]], -1)
    np.testing.assert_allclose(read_photo(saved(tmp_path / "a.png", rgba)), expected, atol=1)
    gray = np.stack([colour[..., 0], GRADIENT], -1)
    np.testing.assert_allclose(
        read_photo(saved(tmp_path / "b.png", gray, "LA")), expected[..., :1].repeat(3, -1), atol=1
    )


def test_palette_with_and_without_transparency(tmp_path):
    indices = np.tile(np.arange(4, dtype=np.uint8), (24, 8))
    image = Image.frombytes("P", (32, 24), indices.tobytes())
    colours = np.array([[200, 10, 20], [0, 250, 30], [9, 8, 7], [60, 70, 80]], np.uint8)
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png"), colours[indices])
    image.save(tmp_path / "b.png", transparency=2)
    colours[2] = 255
    np.testing.assert_array_equal(read_photo(tmp_path / "b.png"), colours[indices])


def test_16_bit_gray_and_rgb(tmp_path):
    deep = np.linspace(0, 65535, 32).astype(np.uint16)[None].repeat(24, 0)
    got = read_photo(saved(tmp_path / "a.png", deep))
    np.testing.assert_allclose(got, (deep / 257)[..., None].repeat(3, -1), atol=0.51)
    np.testing.assert_allclose(read_photo(saved(tmp_path / "b.tif", deep)), got, atol=0)
    rgb = np.stack([deep, deep[:, ::-1], deep // 3], -1)
    np.testing.assert_allclose(read_photo(raw_png(tmp_path / "c.png", rgb, 16, 2)), rgb / 257, atol=1)
    rgba = np.concatenate([rgb, np.full_like(rgb[..., :1], 65535)], -1)
    np.testing.assert_allclose(read_photo(raw_png(tmp_path / "d.png", rgba, 16, 6)), rgb / 257, atol=1)


def cmyk(photo):
    values = np.concatenate([photo(3), (GRADIENT // 2)[..., None]], -1)
    ink = values.astype(float)
    return values, (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255


def test_cmyk_jpeg_of_adobe_is_inverted_and_plain_one_is_not(tmp_path, photo):
    values, expected = cmyk(photo)
    # Pillow writes as Adobe does: inverted values and the marker.
    adobe = saved(tmp_path / "adobe.jpg", values, "CMYK", quality=100)
    assert b"Adobe" in adobe.read_bytes()
    np.testing.assert_allclose(read_photo(adobe), expected, atol=4)
    # Hence its inverse, with the marker cut out, is a file of plain values.
    inverse = saved(tmp_path / "inverse.jpg", 255 - values, "CMYK", quality=100)
    plain = without_adobe_marker(inverse.read_bytes())
    np.testing.assert_allclose(read_photo(plain), expected, atol=4)


def test_cmyk_tiff(tmp_path, photo):
    values, expected = cmyk(photo)
    np.testing.assert_allclose(read_photo(saved(tmp_path / "a.tif", values, "CMYK")), expected, atol=1.5)


# The pixel at the upper left of the upright photo, seen in the stored one (Exif 2.32, 4.6.4, Orientation).
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: a.swapaxes(0, 1)[::-1]),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda a: a.swapaxes(0, 1)[:, ::-1]),
    ],
)
def test_exif_orientation_is_undone(tmp_path, photo, orientation, stored):
    upright = photo(4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = np.ascontiguousarray(stored(upright))
    png = saved(tmp_path / "a.png", turned, exif=exif)
    np.testing.assert_array_equal(read_photo(png), upright)
    jpeg = saved(tmp_path / "a.jpg", turned, exif=exif, quality=98, subsampling=0)
    np.testing.assert_allclose(read_photo(jpeg).astype(int), upright, atol=5)


def test_rotated_cmyk_jpeg(tmp_path, photo):
    values, expected = cmyk(photo)
    exif = Image.Exif()
    exif[0x0112] = 3
    path = saved(tmp_path / "a.jpg", np.ascontiguousarray(values[::-1, ::-1]), "CMYK", quality=100, exif=exif)
    np.testing.assert_allclose(read_photo(path), expected, atol=4)


def test_indices_without_a_palette_are_damaged(tmp_path, classes):
    path = raw_png(tmp_path / "bare.png", np.zeros((4, 6)), 8, 3)
    for read in (read_photo, lambda path: read_label_map(path, classes)):
        with pytest.raises(UserError, match=r"bare\.png: truncated or damaged: its palette is missing"):
            read(path)


@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg_names_the_file(tmp_path, photo, progressive):
    path = saved(tmp_path / "cut.jpg", photo(5, (64, 64)), quality=95, progressive=progressive)
    data = path.read_bytes()
    for lost in (2, 40, len(data) // 2):
        path.write_bytes(data[:-lost])
        with pytest.raises(UserError, match=r"cut\.jpg: truncated or damaged"):
            read_photo(path)


def test_other_unreadable_photos(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a photo")
    saved(tmp_path / "float.tif", GRADIENT.astype(np.float32))
    for name, message in [
        ("none.jpg", "cannot be read: No such file"),
        ("empty.jpg", "the file is empty"),
        ("text.jpg", "not an image in a known format"),
        ("float.tif", "colour mode 'F' has no fixed range"),
    ]:
        with pytest.raises(UserError, match=rf"{name}: {message}"):
            read_photo(tmp_path / name)


@pytest.mark.parametrize("progressive", [False, True])
def test_record_of_an_upright_rgb_jpeg_is_the_file_itself(tmp_path, photo, progressive):
    path = saved(tmp_path / "a.jpg", photo(6), progressive=progressive)
    assert photo_record(path) == (path.read_bytes(), (24, 32))


def test_record_of_any_other_photo_is_a_lossless_png(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [
        saved(tmp_path / "rotated.jpg", photo(7), exif=exif),
        saved(tmp_path / "gray.jpg", GRADIENT),
        saved(tmp_path / "cmyk.jpg", cmyk(photo)[0], "CMYK"),
        saved(tmp_path / "rgba.png", np.concatenate([photo(8), GRADIENT[..., None]], -1)),
    ]
    for path in paths:
        data, size = photo_record(path)
        stored = Image.open(io.BytesIO(data))
        assert (stored.format, stored.mode, stored.size[::-1]) == ("PNG", "RGB", size)
        np.testing.assert_array_equal(np.asarray(stored), read_photo(path))
    assert photo_record(paths[0])[1] == (32, 24)


# Label maps.


def test_gray_ids_and_ignore(tmp_path, labels, classes):
    label = labels(1)
    got = read_label_map(saved(tmp_path / "a.png", label), classes)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, np.where(label == 255, 3, label))
    np.testing.assert_array_equal(read_label_map(encode_png(label), classes), got)


def test_palettised_maps_are_indices_whatever_their_colours(tmp_path, labels, classes):
    label = labels(2)
    image = Image.frombytes("P", label.shape[::-1], label.tobytes())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(tmp_path / "a.png")
    got = read_label_map(tmp_path / "a.png", classes)
    np.testing.assert_array_equal(got, np.where(label == 255, 3, label))


def palettised(path, indices, colours):
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette(np.array(colours, np.uint8).tobytes())
    image.save(path)
    return path


def test_palettised_maps_whose_indices_were_reordered_are_refused(tmp_path, classes):
    sky, road, house = classes.palette
    unlabelled = tuple(classes.palette_array[-1])
    label = np.tile(np.arange(2, dtype=np.uint8), (8, 4))
    with pytest.raises(UserError) as error:
        read_label_map(palettised(tmp_path / "a.png", label, [sky, house, road]), classes)
    assert str(error.value) == (
        f"{tmp_path}/a.png: index 1 shows the colour of house (2), so the indices were reordered and are no "
        "ids: save the map as RGB in the classes' colours, or as gray ids"
    )
    with pytest.raises(UserError, match=r"index 0 shows the colour of unlabelled \(3\)"):
        read_label_map(palettised(tmp_path / "b.png", label, [unlabelled, road, sky, house]), classes)
    # The order of the ids, in the dataset's colours or in others, and colours of indices that do not occur.
    for colours in ([sky, road, house], [sky, road, sky], [(1, 2, 3), sky, road], [road, (1, 2, 3)]):
        got = read_label_map(palettised(tmp_path / "c.png", label, colours), classes)
        np.testing.assert_array_equal(got, label)
    label[0, 0] = 255
    for last in (unlabelled, sky, (1, 2, 3)):
        colours = [sky, road, house] + [(0, 0, 0)] * 252 + [last]
        got = read_label_map(palettised(tmp_path / "d.png", label, colours), classes)
        np.testing.assert_array_equal(got, np.where(label == 255, 3, label))


def test_a_transparent_pixel_of_a_gray_map_is_unlabelled(tmp_path, classes, labels):
    label, alpha = np.minimum(labels(4), 2), np.where(GRADIENT > 100, 255, 0).astype(np.uint8)
    expected = np.where(alpha == 0, 3, label)
    path = saved(tmp_path / "a.png", np.stack([label, alpha], -1), "LA")
    np.testing.assert_array_equal(read_label_map(path, classes), expected)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_maps_of_16_bits_with_colour_or_alpha_are_refused(tmp_path, classes, colour_type, channels):
    samples = np.ones((8, 8, channels), np.uint16)
    with pytest.raises(UserError, match="a.png: 16 bits with colour or alpha: save the map as an 8-bit"):
        read_label_map(raw_png(tmp_path / "a.png", samples, 16, colour_type), classes)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_gray_maps_of_any_depth_hold_plain_ids(tmp_path, classes, depth):
    label = np.tile(np.arange(min(3, 2**depth)), (8, 4))
    got = read_label_map(raw_png(tmp_path / "a.png", label, depth, 0), classes)
    np.testing.assert_array_equal(got, label)


def test_map_in_the_palettes_colours(tmp_path, labels, classes):
    label = np.minimum(labels(3), 3).astype(int)
    colours = classes.colorize(label)
    np.testing.assert_array_equal(read_label_map(saved(tmp_path / "a.png", colours), classes), label)
    hidden = np.where(GRADIENT > 100, 255, 0).astype(np.uint8)
    rgba = np.concatenate([colours, hidden[..., None]], -1)
    np.testing.assert_array_equal(
        read_label_map(saved(tmp_path / "b.png", rgba), classes), np.where(hidden == 0, 3, label)
    )


def test_ignore_may_be_the_id_of_a_class():
    table = ClassTable(("nothing", "sky"), ((0, 0, 0), (9, 9, 9)), ignore=0)
    label = np.array([[0, 1]], np.uint8)
    assert read_label_map(encode_png(label), table).tolist() == [[2, 1]]
    assert read_label_map(encode_png(table.colorize(label)), table).tolist() == [[2, 1]]


def test_ids_outside_the_classes_are_named_with_their_place_and_the_range(tmp_path, classes):
    label = np.zeros((8, 8), np.uint8)
    label[5, 2:4] = 3
    label[6] = 254
    with pytest.raises(UserError) as error:
        read_label_map(saved(tmp_path / "bad.png", label), classes)
    assert str(error.value) == (
        f"{tmp_path}/bad.png: label id 3 at x=2, y=5 (10 pixels in all, and 254); "
        "allowed are 0..2, or 255 for unlabelled"
    )
    deep = label.astype(np.uint16)
    deep[0, 0] = 1000
    with pytest.raises(UserError, match="label id 1000 at x=0, y=0"):
        read_label_map(saved(tmp_path / "deep.png", deep), classes)


def test_colours_outside_the_palette_are_named(tmp_path, classes):
    colours = classes.colorize(np.zeros((8, 8), int))
    colours[2, 3] = (100, 160, 221)
    with pytest.raises(UserError, match=r"bad\.png: colour \[100, 160, 221\] at x=3, y=2 \(1 pixels\)"):
        read_label_map(saved(tmp_path / "bad.png", colours), classes)


def test_lossy_and_unfit_label_maps_are_refused(tmp_path, classes):
    with pytest.raises(UserError, match="JPEG changes label ids"):
        read_label_map(saved(tmp_path / "a.jpg", np.zeros((8, 8), np.uint8)), classes)
    with pytest.raises(UserError, match="colour mode 'F'"):
        read_label_map(saved(tmp_path / "a.tif", GRADIENT.astype(np.float32)), classes)


def test_reading_images_needs_no_tensorflow():
    code = "import sys, mscaflax.data.images, mscaflax.data.inputs; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
