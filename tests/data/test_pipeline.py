"""The input pipeline: the batch contract, exactness under resumption and sharding, the pixels."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from mscaflax.data.pairs import random_words, sample_pair
from mscaflax.data.pipeline import evaluation_pairs, pair_batches

KEYS = {"image", "label", "exemplar", "exemplar_label"}
CLASSES = 9


def encode(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def photo(pixels, label, name="photo", kind="PNG"):
    return {"image": encode(pixels, kind), "label": encode(label), "name": name}


def numbered_photos(count, kind="PNG"):
    """Photo i has one colour that encodes i, plus a ramp in red that differs from place to place."""
    rng = np.random.default_rng(0)
    photos = []
    for index in range(count):
        height, width = rng.integers(20, 60, 2)
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[..., 0] = np.arange(height)[:, None] * 2 + np.arange(width)[None]
        pixels[..., 1] = 20 * (index % 12)
        pixels[..., 2] = 20 * (index // 12)
        label = np.full((height, width), index % (CLASSES + 1), np.uint8)
        photos.append(photo(pixels, label, f"photo{index}", kind))
    return photos


def photo_number(images):
    """Inverts the colour code of `numbered_photos`: [b, h, w, 3] -> [b]."""
    colour = np.rint((images + 1) * 127.5 / 20).mean(axis=(1, 2))
    return (colour[:, 1] + 12 * colour[:, 2]).astype(int)


def batches(source, **changes):
    options = {"size": 8, "num_classes": CLASSES, "batch_size": 4, "seed": 5, "threads": 2} | changes
    return pair_batches(source, **options)


def take(source, count, **changes):
    iterator = batches(source, **changes)
    return [next(iterator) for _ in range(count)]


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.fixture(scope="module")
def source():
    return numbered_photos(10)


@pytest.fixture(scope="module")
def streams(source):
    return {both: take(source, 10, both_directions=both) for both in (False, True)}


@pytest.fixture(scope="module")
def first_batches(streams):
    return streams[False]


def test_batch_contract(first_batches):
    for batch in first_batches:
        assert batch.keys() == KEYS
        for key in ("image", "exemplar"):
            assert batch[key].shape == (4, 8, 8, 3) and batch[key].dtype == np.float32
            assert np.abs(batch[key]).max() <= 1
        for key in ("label", "exemplar_label"):
            assert batch[key].shape == (4, 8, 8) and batch[key].dtype == np.int32
            assert batch[key].min() >= 0 and batch[key].max() <= CLASSES
    everything = np.concatenate([batch["image"] for batch in first_batches])
    assert everything.min() < -0.9 and everything.max() > 0.3


def test_same_seed_same_batches_and_other_seed_others(source, first_batches):
    for a, b in zip(first_batches[:3], take(source, 3, threads=1), strict=True):
        assert_equal(a, b)
    other = next(batches(source, seed=6))
    assert not np.array_equal(other["image"], first_batches[0]["image"])


both_ways = pytest.mark.parametrize("both_directions", [False, True])


@both_ways
@pytest.mark.parametrize("step", [1, 4, 9])
def test_batch_n_is_had_at_once(streams, source, step, both_directions):
    begun_late = next(batches(source, start_step=step, both_directions=both_directions))
    assert_equal(begun_late, streams[both_directions][step])


def test_a_late_start_reads_no_earlier_photo(source):
    class Counting(list):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return super().__getitem__(index)

    counting = Counting(source)
    next(batches(counting, start_step=10**9))
    assert counting.reads < 40


@both_ways
@pytest.mark.parametrize("processes", [2, 4])
def test_slices_of_all_processes_are_the_global_batch(source, processes, both_directions):
    options = {"batch_size": 8, "both_directions": both_directions, "flip": True}
    slices = [options | {"process_index": i, "process_count": processes} for i in range(processes)]
    iterators = [batches(source, **one) for one in slices]
    for whole in take(source, 4, **options):
        parts = [next(iterator) for iterator in iterators]
        assert_equal({key: np.concatenate([part[key] for part in parts]) for key in KEYS}, whole)


@both_ways
def test_each_epoch_draws_a_pair_of_each_photo_in_a_new_order(streams, both_directions):
    stream = np.concatenate([photo_number(batch["image"]) for batch in streams[both_directions]])
    if both_directions:
        assert (stream[::2] == stream[1::2]).all()
        stream = stream[::2]
    epochs = stream.reshape(-1, 10)
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs) == (2 if both_directions else 4)


def test_batch_larger_than_the_dataset():
    photos = numbered_photos(3)
    batch = next(batches(photos, batch_size=8, self_share=0))
    numbers = photo_number(batch["image"])
    assert sorted(numbers[:3]) == sorted(numbers[3:6]) == [0, 1, 2]
    again = batch["image"][3:6][np.argsort(numbers[3:6])] - batch["image"][:3][np.argsort(numbers[:3])]
    assert np.all(np.abs(again).max(axis=(1, 2, 3)) > 0)
    assert photo_number(next(batches(photos[:1]))["image"]).tolist() == [0] * 4


def test_both_directions_of_a_pair_stand_side_by_side(source):
    stream = []
    for batch in take(source, 5, self_share=0.25, both_directions=True):
        for key, other in (("image", "exemplar"), ("label", "exemplar_label")):
            # The fourth example reconstructs itself; the others have their neighbour as exemplar.
            np.testing.assert_array_equal(batch[other], batch[key][[1, 0, 3, 3]])
        assert not np.array_equal(batch["image"][0], batch["image"][1])
        stream.extend(photo_number(batch["image"])[::2])
    assert sorted(stream) == list(range(10))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_both_patches_come_from_one_photo(kind):
    for batch in take(numbered_photos(10, kind), 5):
        np.testing.assert_array_equal(photo_number(batch["image"]), photo_number(batch["exemplar"]))
        np.testing.assert_array_equal(photo_number(batch["image"]) % (CLASSES + 1), batch["label"][:, 0, 0])


@pytest.mark.parametrize(
    ("share", "expected"), [(0, []), (0.25, [3]), (0.3, [3, 6, 9]), (1, list(range(10)))]
)
def test_self_share_is_exact_and_spread(source, share, expected):
    size = 4 if share == 0.25 else 10
    iterator = batches(source, batch_size=size, self_share=share, seed=1)
    for _ in range(3):
        batch = next(iterator)
        same = [j for j in range(size) if np.array_equal(batch["image"][j], batch["exemplar"][j])]
        assert same == expected
        assert all(np.array_equal(batch["label"][j], batch["exemplar_label"][j]) for j in same)


def test_self_share_holds_over_batches_too_small_for_it(source):
    flags = [np.array_equal(batch["image"], batch["exemplar"]) for batch in take(source, 16, batch_size=1)]
    assert flags == [False, False, False, True] * 4


def test_self_share_changes_no_target(source, first_batches):
    without = take(source, 2, self_share=0)
    for a, b in zip(without, first_batches, strict=False):
        np.testing.assert_array_equal(a["image"], b["image"])


def test_patches_are_the_sampled_squares():
    # The side equals the size, so nothing is resized and the crop can be read back to the pixel.
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (12, 16, 3), np.uint8)
    label = rng.integers(0, CLASSES + 1, (12, 16), np.uint8)
    iterator = batches([photo(pixels, label)], batch_size=1, side_range=(1, 1), self_share=0)
    for position in range(6):
        batch = next(iterator)
        pair = sample_pair(12, 16, random_words(5, 0, position, 4)[:3], (1, 1))
        assert pair.side == 8
        for prefix, (top, left) in (("", pair.target), ("exemplar", pair.exemplar)):
            window = np.s_[top : top + 8, left : left + 8]
            np.testing.assert_allclose(batch[prefix or "image"][0], pixels[window] / 127.5 - 1, atol=1e-5)
            np.testing.assert_array_equal(batch[f"{prefix}_label" if prefix else "label"][0], label[window])


def test_label_and_photo_stay_aligned_through_the_resize():
    # A photo painted from its label map: after any resize, a pixel well inside a region has the region's
    # colour. A shift between the two resizes would break that along one side of every border.
    rng = np.random.default_rng(2)
    label = np.kron(rng.integers(0, 2, (8, 12)), np.ones((23, 23))).astype(np.uint8)
    pixels = np.repeat(label[..., None] * 255, 3, axis=-1)
    for size in (16, 48, 150):
        batch = next(batches([photo(pixels, label)], size=size, batch_size=16))
        painted = batch["label"] * 2.0 - 1
        agree = np.mean(np.sign(batch["image"][..., 0]) == painted)
        assert agree > 0.985, (size, agree)
        # No side of a border is favoured: the mean offset between the two is far below a pixel.
        for axis in (1, 2):
            residual = batch["image"][..., 0] - painted
            slope = np.gradient(painted, axis=axis)
            offset = np.sum(residual * slope) / np.sum(slope**2)
            assert abs(offset) < 0.15, (size, axis, offset)


def test_checkerboard_turns_grey():
    board = (np.indices((64, 128)).sum(axis=0) % 2 * 255).astype(np.uint8)
    record = photo(np.repeat(board[..., None], 3, axis=-1), np.zeros((64, 128), np.uint8))
    batch = next(batches([record], size=16, side_range=(0.9, 1)))
    assert np.abs(batch["image"]).max() < 0.08


@both_ways
def test_flip_mirrors_both_patches_together(source, both_directions):
    options = {"batch_size": 32, "both_directions": both_directions}
    plain, flipped = next(batches(source, **options)), next(batches(source, flip=True, **options))
    mirrored = [not np.array_equal(a, b) for a, b in zip(plain["image"], flipped["image"], strict=True)]
    for j in np.flatnonzero(mirrored):
        for key in KEYS:
            np.testing.assert_array_equal(plain[key][j], flipped[key][j][:, ::-1])
    assert 6 < sum(mirrored) < 26
    # Both uses of a pair are mirrored, or neither.
    assert (mirrored[::2] == mirrored[1::2]) == both_directions


def test_waiting_time_is_measured(source):
    class Slow(list):
        def __getitem__(self, index):
            time.sleep(0.02)
            return super().__getitem__(index)

    iterator = batches(Slow(source), threads=1)
    next(iterator)
    iterator.take_waited_seconds()
    for _ in range(5):
        next(iterator)
    assert 0.1 < iterator.waited_seconds < 2
    time.sleep(0.3)
    assert iterator.take_waited_seconds() > 0.1
    next(iterator)
    assert iterator.take_waited_seconds() < 0.05
    assert iterator.batches == 7


def test_evaluation_pairs_are_frozen_cross_pairs(source):
    pairs = evaluation_pairs(source, count=13, size=8, num_classes=CLASSES, seed=0)
    assert pairs["image"].shape == (13, 8, 8, 3) and pairs["boxes"].shape == (13, 2, 3)
    assert sorted(pairs["index"][:10]) == list(range(10))
    assert pairs["name"].tolist() == [f"photo{i}" for i in pairs["index"]]
    np.testing.assert_array_equal(photo_number(pairs["exemplar"]), pairs["index"])
    distance = np.abs(pairs["boxes"][:, 0] - pairs["boxes"][:, 1])[:, :2].max(axis=1)
    assert np.all(distance >= pairs["boxes"][:, 0, 2])
    fewer = evaluation_pairs(source, count=4, size=8, num_classes=CLASSES, seed=0, threads=1)
    assert_equal(fewer, {key: value[:4] for key, value in pairs.items()})


def test_evaluation_pairs_once_frozen_stay_as_they_are(source):
    """Results of other times and machines are compared pair by pair."""
    pairs = evaluation_pairs(source, count=12, size=8, num_classes=CLASSES, seed=0)
    assert pairs["index"].tolist() == [0, 9, 1, 8, 4, 5, 3, 6, 7, 2, 1, 8]
    assert pairs["boxes"][:3].tolist() == [
        [[14, 2, 18], [36, 8, 18]],
        [[2, 5, 16], [0, 22, 16]],
        [[20, 2, 16], [2, 13, 16]],
    ]


def test_facade_photos_read_as_another_decoder_reads_them(shared_data):
    folder = shared_data / "facade"
    path = sorted((folder / "images/val").glob("*.jpg"))[0]
    pixels = np.array(Image.open(path).convert("RGB"))
    label = np.minimum(np.array(Image.open(folder / "annotations/val" / f"{path.stem}.png")), CLASSES)
    record = {"image": path.read_bytes(), "label": encode(label), "name": path.stem}
    pairs = evaluation_pairs([record], count=4, size=64, num_classes=CLASSES, seed=0)
    for patch, (top, left, side) in zip(pairs["image"], pairs["boxes"][:, 0], strict=True):
        cut = Image.fromarray(pixels[top : top + side, left : left + side])
        other = np.array(cut.resize((64, 64), Image.Resampling.BICUBIC)) / 127.5 - 1
        assert np.abs(other - patch).mean() < 0.01
