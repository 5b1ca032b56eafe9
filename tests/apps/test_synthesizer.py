import dataclasses
import shutil
import sys
from subprocess import DEVNULL, run

import numpy as np
import pytest
from PIL import Image

from mscaflax import Synthesizer, UserError
from mscaflax.apps.inputs import MAX_PIXELS, legal_exemplar, pad_to_multiple
from mscaflax.data.images import read_label_map, read_photo
from mscaflax.data.pixels import to_float, to_uint8


def read_ids(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def synthesizer(tiny_run):
    return Synthesizer.from_workdir(tiny_run)


@pytest.fixture(scope="module")
def exemplar(photo_folder):
    """A square cut of a photo and of its map."""
    photo = read_photo(photo_folder / "images/train/0.png")[16:48, 20:52]
    label = read_ids(photo_folder / "annotations/train/0.png")[16:48, 20:52]
    return photo, label


@pytest.fixture(scope="module")
def layout(photo_folder):
    """A label map of an odd size, uint8 [50, 70]."""
    return read_ids(photo_folder / "annotations/val/0.png")[:50, :70]


@pytest.fixture(scope="module")
def picture(synthesizer, layout, exemplar):
    return synthesizer(layout, *exemplar)


class HalfAndHalf:
    """A stand-in for a segmenter: class 1 above, class 2 below."""

    scores = None

    def predict(self, images):
        maps = np.ones(images.shape[:3], np.int32)
        maps[:, images.shape[1] // 2 :] = 2
        return maps


def test_a_photo_without_label_map_has_the_segmenters(tiny_run, layout, exemplar):
    synthesizer = Synthesizer.from_workdir(tiny_run)
    synthesizer.__dict__["segmenter"] = HalfAndHalf()
    photo = exemplar[0]
    guess = synthesizer.segment(photo)
    assert guess.shape == photo.shape[:2] and guess.dtype == np.int32
    assert (guess[: len(guess) // 2] == 1).all() and (guess[len(guess) // 2 :] == 2).all()
    read = synthesizer.read_exemplar(photo)
    assert read.guessed and not synthesizer.read_exemplar(photo, guess).guessed
    np.testing.assert_array_equal(synthesizer(layout, photo), synthesizer(layout, photo, guess))
    assert np.abs(synthesizer(layout, photo).astype(int) - synthesizer(layout, *exemplar)).max() > 1


def test_without_a_segmenter_a_photo_needs_its_label_map(synthesizer, layout, exemplar, tiny_run):
    with pytest.raises(UserError, match=f"mscaflax segmenter --workdir={tiny_run}"):
        synthesizer(layout, exemplar[0])
    with pytest.raises(UserError, match="no workdir"):
        Synthesizer(synthesizer.model).segment(exemplar[0])


def test_any_size(picture):
    assert picture.shape == (50, 70, 3) and picture.dtype == np.uint8
    assert picture.std() > 2


def test_padding_changes_nothing(synthesizer, layout, exemplar):
    """A map of a legal size, alone and on a larger canvas whose rest is padding: the same, to rounding."""
    model, classes = synthesizer.model, synthesizer.classes.num_classes
    content = layout[:48, :64].astype(np.int32)
    photo, photo_label = (x[None] for x in legal_exemplar(synthesizer.model, *exemplar))
    photo = to_float(photo)
    alone = model.generate(content[None], photo, photo_label, 3)
    canvas = np.random.default_rng(0).integers(0, classes + 1, (1, 64, 80))
    canvas[0, :48, :64] = content
    valid = np.zeros((1, 64, 80), bool)
    valid[0, :48, :64] = True
    padded = model.generate(canvas, photo, photo_label, 3, valid)[:, :48, :64]
    np.testing.assert_allclose(padded, alone, atol=2e-4)
    # Without `valid` the rest counts: the test can tell.
    assert np.abs(model.generate(canvas, photo, photo_label, 3)[:, :48, :64] - alone).max() > 1e-2
    halves = model.decode(model.align(content[None], photo, photo_label), content[None], 3)
    np.testing.assert_array_equal(
        synthesizer(content, *exemplar, seed=3), to_uint8(halves[0]), err_msg="a legal size is not padded"
    )


def test_the_padding_of_an_odd_size_holds_nothing(synthesizer, layout, exemplar, picture):
    """What `Synthesizer` writes into its padding does not matter, nor how much there is of it."""
    photo, photo_label = (x[None] for x in legal_exemplar(synthesizer.model, *exemplar))
    photo = to_float(photo)
    canvas = np.full((1, 64, 96), 2)
    canvas[0, :50, :70] = layout
    valid = np.zeros((1, 64, 96), bool)
    valid[0, :50, :70] = True
    other = to_uint8(synthesizer.model.generate(canvas, photo, photo_label, 0, valid)[0, :50, :70])
    assert np.abs(other.astype(int) - picture).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 16), (32, 32), (33, 47)])
def test_pad_to_multiple(size):
    label = np.random.default_rng(0).integers(0, 5, size).astype(np.uint8)
    padded, valid = pad_to_multiple(label, 16, fill=9)
    assert padded.dtype == np.int32 and valid.dtype == bool and padded.shape == valid.shape
    assert all(side % 16 == 0 and side >= 32 for side in padded.shape)
    assert all(side < max(given + 16, 33) for side, given in zip(padded.shape, size, strict=True))
    np.testing.assert_array_equal(padded[: size[0], : size[1]], label)
    assert valid.sum() == label.size and valid[: size[0], : size[1]].all()
    assert (padded[~valid] == 9).all()


def test_a_single_pixel(synthesizer, exemplar):
    assert synthesizer(np.zeros((1, 1), np.uint8), *exemplar).shape == (1, 1, 3)


def test_the_same_call_gives_the_same_picture(synthesizer, layout, exemplar, picture):
    np.testing.assert_array_equal(synthesizer(layout, *exemplar), picture)
    strong = dataclasses.replace(synthesizer.model, params=_louder(synthesizer.model.params))
    one, same, other = (Synthesizer(strong)(layout, *exemplar, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def _louder(params):
    """Parameters whose noise maps count: a network that was hardly trained nearly ignores them."""
    import jax

    def scale(path, x):
        return x + 1 if "noise" in jax.tree_util.keystr(path).lower() else x

    return jax.tree.map_with_path(scale, params)


def test_an_exemplar_of_a_camera_size(synthesizer, layout, exemplar, picture):
    """Six megapixels are more than a label map may have, but are made small before anything else happens."""
    photo = np.asarray(Image.fromarray(exemplar[0]).resize((3000, 2000), Image.Resampling.NEAREST))
    photo_label = np.asarray(Image.fromarray(exemplar[1]).resize((3000, 2000), Image.Resampling.NEAREST))
    assert photo_label.size > MAX_PIXELS
    assert synthesizer(layout, photo, photo_label).shape == picture.shape


def test_photo_and_map_of_an_exemplar_stay_aligned(synthesizer):
    label = np.zeros((90, 200), np.uint8)
    label[:, 80:] = 1
    photo = np.stack([label * 200] * 3, axis=-1)
    resized, resized_label = legal_exemplar(synthesizer.model, photo, label)
    assert np.abs(resized[..., 0] / 200 - resized_label).mean() < 0.02


def test_a_diverged_model_is_said_in_a_line(synthesizer, layout, exemplar):
    import jax

    broken = dataclasses.replace(
        synthesizer.model, params=jax.tree.map(lambda x: x * np.nan, synthesizer.model.params)
    )
    with pytest.raises(UserError, match="not finite: the training of this model has diverged"):
        Synthesizer(broken)(layout, *exemplar)
    with pytest.raises(UserError, match="not finite: the training of this model has diverged"):
        Synthesizer(broken).explain(layout, *exemplar)


def test_the_exemplar_matters(synthesizer, layout, exemplar, picture):
    other = synthesizer(layout, 255 - exemplar[0], exemplar[1])
    assert (other != picture).any()


def test_files_and_arrays_ids_and_colours_give_the_same(synthesizer, layout, exemplar, picture, tmp_path):
    ids, colours, photo, photo_label = (tmp_path / f"{name}.png" for name in "abcd")
    Image.fromarray(layout).save(ids)
    Image.fromarray(synthesizer.classes.colorize(layout)).save(colours)
    Image.fromarray(exemplar[0]).save(photo)
    Image.fromarray(exemplar[1]).save(photo_label)
    assert (read_label_map(colours, synthesizer.classes) == layout).all()
    np.testing.assert_array_equal(synthesizer(ids, photo, photo_label), picture)
    np.testing.assert_array_equal(synthesizer(str(colours), str(photo), photo_label), picture)
    np.testing.assert_array_equal(synthesizer(layout.astype(np.int64), photo, exemplar[1]), picture)


@pytest.mark.parametrize(
    ("size", "legal"),
    [
        # The mean patch has 0.75 · min(short, long / 2) pixels, and comes to 32.
        ((32, 32), (80, 80)),
        ((8, 8), (80, 80)),
        ((64, 128), (48, 80)),
        ((100, 70), (80, 64)),
        ((1, 1), (80, 80)),
        ((5000, 3), (512, 48)),
        ((2, 4000), (48, 512)),
    ],
)
def test_exemplars_of_any_shape_become_legal(synthesizer, size, legal):
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    label = rng.integers(0, synthesizer.classes.num_classes + 1, size)
    resized, resized_label = legal_exemplar(synthesizer.model, photo, label)
    assert resized.shape == (*legal, 3) and resized.dtype == np.uint8
    assert resized_label.shape == legal and resized_label.dtype == np.int32
    assert set(np.unique(resized_label)) <= set(np.unique(label))


SQUARE = np.zeros((32, 32), np.uint8)
PHOTO = np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("label", "photo", "photo_label", "message"),
    [
        (SQUARE, PHOTO, SQUARE[:20], r"the exemplar is 32x32 pixels \(upright.*\), its label map 32x20"),
        (SQUARE + 99, PHOTO, SQUARE, r"the label map holds 99..99, allowed are 0..12 \(12 = unlabelled\)"),
        (SQUARE.astype(np.int32) - 1, PHOTO, SQUARE, "the label map holds -1..-1"),
        (SQUARE, PHOTO, SQUARE + 13, "the exemplar's label map holds 13..13"),
        (SQUARE.astype(float), PHOTO, SQUARE, r"the label map must be integers \[h, w\], got float64"),
        (SQUARE > 0, PHOTO, SQUARE, "the label map must be integers"),
        (SQUARE[None], PHOTO, SQUARE, r"got uint8 \[1, 32, 32\]"),
        (SQUARE[:0], PHOTO, SQUARE, r"got uint8 \[0, 32\]"),
        (SQUARE, PHOTO / 255, SQUARE, r"the exemplar must be uint8 \[h, w, 3\], got float64 \[32, 32, 3\]"),
        (SQUARE, SQUARE, SQUARE, r"the exemplar must be uint8 \[h, w, 3\], got uint8 \[32, 32\]"),
        (SQUARE, np.zeros((32, 32, 4), np.uint8), SQUARE, "the exemplar must be uint8"),
        (SQUARE, PHOTO[:, :0], SQUARE[:, :0], "the exemplar must be uint8"),
        (
            np.broadcast_to(SQUARE[:1, :1], (2049, 2048)),
            PHOTO,
            SQUARE,
            "2048x2049 pixels: make it smaller, at most 4,194,304 in all",
        ),
        (np.broadcast_to(SQUARE[:1, :1], (9, 20_000)), PHOTO, SQUARE, "20000x9 pixels: .* 16,384 a side"),
        (SQUARE, None, SQUARE, "the exemplar must be uint8"),
    ],
)
def test_unusable_arrays(synthesizer, label, photo, photo_label, message):
    assert MAX_PIXELS == 2048 * 2048
    with pytest.raises(UserError, match=message):
        synthesizer(label, photo, photo_label)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_unusable_seeds(synthesizer, seed):
    with pytest.raises(UserError, match=f"the seed {seed} is outside 0..4294967295"):
        synthesizer(SQUARE, PHOTO, SQUARE, seed=seed)


@pytest.mark.parametrize("seed", [0.5, "1", None])
def test_seeds_that_are_no_whole_numbers(synthesizer, seed):
    with pytest.raises(UserError, match=rf"the seed must be a whole number in 0\.\.4294967295, got {seed!r}"):
        synthesizer(SQUARE, PHOTO, SQUARE, seed=seed)


def test_unusable_files(synthesizer, tmp_path):
    good, text, lossy, wrong = (tmp_path / name for name in ("a.png", "b.png", "c.jpg", "d.png"))
    Image.fromarray(SQUARE).save(good)
    text.write_text("no image")
    Image.fromarray(SQUARE).save(lossy)
    Image.fromarray(SQUARE + 77).save(wrong)
    photo = tmp_path / "photo.png"
    Image.fromarray(PHOTO).save(photo)
    for arguments, message in [
        ((text, photo, good), f"{text}: not an image in a known format"),
        ((good, text, good), f"{text}: not an image in a known format"),
        ((good, photo, lossy), f"{lossy}: JPEG changes label ids"),
        (
            (wrong, photo, good),
            f"{wrong}: label id 77 at x=0, y=0 .*allowed are 0..11, or 255 for unlabelled",
        ),
        ((tmp_path / "none.png", photo, good), f"{tmp_path}/none.png: cannot be read: No such file"),
        ((good, tmp_path, good), f"{tmp_path}: cannot be read"),
    ]:
        with pytest.raises(UserError, match=message):
            synthesizer(*arguments)


def test_unusable_workdirs(tiny_run, tmp_path):
    with pytest.raises(UserError, match="holds no trained model: make one with `mscaflax train`"):
        Synthesizer.from_workdir(tmp_path)
    with pytest.raises(UserError, match="no checkpoint of step 7: it holds steps 2, 4"):
        Synthesizer.from_workdir(tiny_run, step=7)
    shutil.copytree(tiny_run, tmp_path / "run", ignore=lambda folder, names: {"checkpoints"} & set(names))
    with pytest.raises(UserError, match="has no checkpoint: train first"):
        Synthesizer.from_workdir(tmp_path / "run")


def test_an_earlier_step(tiny_run, synthesizer):
    import jax

    earlier = Synthesizer.from_workdir(tiny_run, step=2).model
    assert (earlier.step, synthesizer.model.step) == (2, 4)
    leaves = zip(jax.tree.leaves(earlier.params), jax.tree.leaves(synthesizer.model.params), strict=True)
    assert any((a != b).any() for a, b in leaves)


def test_neither_import_nor_model_need_tensorflow(tiny_run):
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['tensorflow_datasets'] = None; "
        f"import mscaflax; mscaflax.Synthesizer.from_workdir({str(tiny_run)!r})"
    )
    done = run([sys.executable, "-c", code], stdin=DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_two_halves_give_the_whole(synthesizer, exemplar, layout):
    photo, photo_label = (x[None] for x in legal_exemplar(synthesizer.model, *exemplar))
    label, valid = (x[None] for x in pad_to_multiple(layout, 16, synthesizer.classes.num_classes))
    arguments = label, to_float(photo), photo_label
    alignments = synthesizer.model.align(*arguments, valid)
    halves = synthesizer.model.decode(alignments, label, 7, valid)
    np.testing.assert_allclose(halves, synthesizer.model.generate(*arguments, 7, valid), atol=1e-5)
