"""The input pipeline: batches of patch pairs, random-access and stateless, by tf.data.

The batch of step n is a pure function of (dataset, seed, n). Nothing is skipped or carried over: a run that
resumes at step n asks for batch n and has it at once. Example j of batch n has the position
g = n * batch_size + j in an endless stream, and is drawn from pair p of an endless stream of pairs: p = g, or
p = g // 2 where every pair serves in both directions. Epoch p // N is a permutation of the N photos
(`index_shuffle`, a permutation that takes no memory); the squares and the mirroring come from Philox words
keyed by (seed, p); which square is the target, and whether it is its own exemplar, follows from g alone. So
with several processes, each reading a contiguous slice of every batch, no photo gives two pairs in an epoch,
and the global batch does not depend on their number.

Random access to the encoded photos runs in `tf.numpy_function` (array_record has no tf.data reader);
decoding, cropping and resizing are TensorFlow ops, in parallel and in a fixed order.
"""

import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from mscaflax.data.pairs import WORDS_PER_PAIR, check_side_range, random_words, sample_pair
from mscaflax.data.patches import cut_patch, decode, png_size
from mscaflax.data.tensorflow import import_tensorflow
from mscaflax.errors import UserError

Batch = dict[str, np.ndarray]

_BATCH_KEYS = ("image", "label", "exemplar", "exemplar_label")
_TRAINING_STREAM, _EVALUATION_STREAM = 0, 1


class Source(Protocol):
    """Random access to photos: `source[i]` has "image" (JPEG or PNG bytes), "label" (8-bit PNG), "name"."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class BatchIterator(Iterator[Batch]):
    """Iterates over batches and measures how long its user had to wait for them.

    Attributes:
      waited_seconds: time spent inside `next` since the start or the last `take_waited_seconds`.
      batches: number of batches handed out so far.
    """

    def __init__(self, dataset: Any, reader: "_Reader", positions: Callable[[int], Iterable[int]]):
        """`positions(n)`: those of the n-th batch from here, for the message if it cannot be made."""
        self._held = [dataset.as_numpy_iterator()]
        # Also runs at exit: threads of tf.data that still wait for the interpreter's lock while it shuts
        # down would never get it, and the program would hang.
        weakref.finalize(self, self._held.clear)
        self._reader, self._positions = reader, positions
        self.waited_seconds = 0.0
        self.batches = 0

    def __next__(self) -> Batch:
        errors = import_tensorflow().errors
        start = time.perf_counter()
        try:
            batch = next(self._held[0])
        except errors.OpError as error:
            raise self._reader.explain(error, self._positions(self.batches)) from error
        finally:
            self.waited_seconds += time.perf_counter() - start
        self.batches += 1
        return batch

    def take_waited_seconds(self) -> float:
        """Returns `waited_seconds` and sets it to zero, for a share of the time between two log lines."""
        waited, self.waited_seconds = self.waited_seconds, 0.0
        return waited


def pair_batches(
    source: Source,
    *,
    size: int,
    num_classes: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    self_share: float = 0.25,
    side_range: tuple[float, float] = (0.5, 1.0),
    flip: bool = False,
    both_directions: bool = False,
    process_index: int = 0,
    process_count: int = 1,
    threads: int | None = None,
    prefetch: int = 2,
) -> BatchIterator:
    """An endless iterator over this process's slice of the batches of patch pairs, from `start_step` on.

    Each batch is a dict of read-only numpy arrays; b = batch_size / process_count, h = w = size,
    C = num_classes: image [b, h, w, 3] float32 in [-1, 1] (the target patch), label [b, h, w] int32 in 0..C
    (C = unlabelled), exemplar and exemplar_label likewise. Photos are resized by antialiased bicubic
    interpolation, label maps by taking the nearest pixel centre. The slices of all processes, concatenated in
    order, are the global batch.

    Args:
      source: random access to the photos.
      size: side of the returned patches, in pixels.
      num_classes: C; a larger id in a label map is an error.
      batch_size: the global batch size, a multiple of `process_count`. It may exceed the number of photos.
      seed: 0 .. 2^63 - 1.
      start_step: the batch to begin with; costs nothing.
      self_share: share of the examples whose exemplar is the target patch itself (self reconstruction). They
        are spread evenly: of the first g examples of the stream exactly floor(g * self_share) are such.
      side_range: range of the patch side as a share of min(short side, long side / 2).
      flip: mirror both patches of a pair left to right, together, with probability 1/2.
      both_directions: let every pair serve twice in a row, first one patch being the target, then the other;
        so the exemplar of example 2i, unless it is its target, is the target of 2i+1, and the reverse.
      process_index: which slice.
      process_count: number of slices.
      threads: threads of the pipeline's own pool; default: the CPU's cores, at most 16.
      prefetch: batches held ready.

    Raises:
      UserError: a bad argument, here; a photo too small for two patches, a label outside 0..C or a record
        that cannot be decoded, from `next`.
    """
    if process_count < 1 or not 0 <= process_index < process_count:
        raise UserError(f"process {process_index} of {process_count} does not exist: count from 0")
    if batch_size < 1 or batch_size % process_count:
        raise UserError(f"batch size {batch_size} must be a positive multiple of {process_count} processes")
    if both_directions and batch_size // process_count % 2:
        raise UserError(f"batch size {batch_size} must be even for each of {process_count} processes")
    if start_step < 0:
        raise UserError(f"start step {start_step} is negative")
    tf = import_tensorflow()
    reader = _Reader(source, seed, _TRAINING_STREAM, side_range, flip, self_share, both_directions)
    local = batch_size // process_count
    offset = process_index * local

    @tf.autograph.experimental.do_not_convert
    def position(k):
        return k // local * batch_size + offset + k % local

    dataset = tf.data.Dataset.range(start_step * local, np.iinfo(np.int64).max).map(position)
    dataset = _examples(dataset, reader, size, num_classes, threads, _BATCH_KEYS)
    dataset = dataset.batch(local, drop_remainder=True).prefetch(prefetch)
    first = start_step * local
    return BatchIterator(dataset, reader, lambda n: [position(first + n * local + j) for j in range(local)])


def evaluation_pairs(
    source: Source,
    *,
    count: int,
    size: int,
    num_classes: int,
    seed: int,
    side_range: tuple[float, float] = (0.5, 1.0),
    threads: int | None = None,
) -> Batch:
    """`count` frozen cross pairs: always the same for the same (dataset, count, size, seed, side_range).

    The first `count` photos of a random permutation, one pair each; past the number of photos the next
    permutation follows. A larger count only appends. The patches are not those of `pair_batches` with this
    seed.

    Returns:
      The batch of `pair_batches` with b = count, and
      name [count] object (str), index [count] int64 (the photo's place in `source`),
      boxes [count, 2, 3] int32: (top, left, side) of target and exemplar in the photo, in pixels.

    Raises:
      UserError: as `pair_batches`.
    """
    if count < 1:
        raise UserError(f"{count} evaluation pairs: ask for at least one")
    tf = import_tensorflow()
    reader = _Reader(source, seed, _EVALUATION_STREAM, side_range)
    keys = (*_BATCH_KEYS, "name", "index", "boxes")
    dataset = _examples(tf.data.Dataset.range(count), reader, size, num_classes, threads, keys)
    pairs = next(BatchIterator(dataset.batch(count), reader, lambda n: range(count)))
    pairs["name"] = np.array([name.decode() for name in pairs["name"]], object)
    return pairs


class _Reader:
    """The Python side of the pipeline: fetches records, draws their pairs, and keeps what went wrong.

    TensorFlow turns an exception of a `numpy_function` into text, so `_failures` holds the originals.
    """

    def __init__(
        self,
        source: Source,
        seed: int,
        stream: int,
        side_range: tuple[float, float],
        flip: bool = False,
        self_share: float = 0.0,
        both_directions: bool = False,
    ):
        if not 0 <= seed < 1 << 63:
            raise UserError(f"seed {seed} must lie in 0..2^63-1")
        if not 0 <= self_share <= 1:
            raise UserError(f"self share {self_share} must lie in 0..1")
        if not len(source):
            raise UserError("the dataset has no photos: prepare it again")
        self._failures: list[UserError] = []
        self._source, self._side_range, self._flip = source, check_side_range(side_range), flip
        self._seed, self._stream = seed, stream
        self._uses_of_a_pair = 2 if both_directions else 1
        self._share = Fraction(self_share).limit_denominator(1_000_000)

    def index(self, position: Any) -> Any:
        """The photo at a position: a TensorFlow op of one."""
        tf = import_tensorflow()
        pair, photos = position // self._uses_of_a_pair, len(self._source)
        seed = tf.stack([tf.constant(self._seed, tf.int64), pair // photos])
        last = tf.constant(photos - 1, tf.int64)
        return tf.random.experimental.index_shuffle(pair % photos, seed=seed, max_index=last)

    def load(self, position: np.ndarray, index: np.ndarray) -> tuple:
        """(position, index) -> encoded photo, encoded map, name, boxes int32 [2, 3], mirrored."""
        record = self._source[int(index)]
        name = record["name"]
        pair_position, use = divmod(int(position), self._uses_of_a_pair)
        words = random_words(self._seed, self._stream, pair_position, WORDS_PER_PAIR + 1)
        try:
            pair = sample_pair(*png_size(record["label"]), words[:WORDS_PER_PAIR], self._side_range)
        except UserError as error:
            raise self._fail(f"{name}: {error}") from error
        target, other = (pair.exemplar, pair.target) if use else (pair.target, pair.exemplar)
        exemplar = target if self._is_self(int(position)) else other
        boxes = np.array([(*target, pair.side), (*exemplar, pair.side)], np.int32)
        mirrored = np.bool_(self._flip and words[-1] >> 63)
        return record["image"], record["label"], name.encode(), boxes, mirrored

    def refuse(
        self, name: bytes, photo: np.ndarray, label: np.ndarray, largest: np.ndarray, classes: np.ndarray
    ):
        """Raises the error of a record whose photo and map (shapes [3]) do not fit, or whose ids do not."""
        if tuple(photo[:2]) != tuple(label[:2]):
            sizes = f"photo {photo[1]}x{photo[0]}, label map {label[1]}x{label[0]}"
            raise self._fail(f"{name.decode()}: {sizes} pixels differ: prepare the dataset again")
        raise self._fail(
            f"{name.decode()}: label {largest} is outside 0..{classes}: prepare the dataset again"
        )

    def explain(self, error: Exception, positions: Iterable[int]) -> UserError:
        """What to say of TensorFlow's error in making the examples at `positions`."""
        if self._failures:
            return self._failures[0]
        tf = import_tensorflow()
        # It does not say which record it was: they are tried one by one.
        for position in positions:
            index = int(self.index(tf.constant(position, tf.int64)))
            name = f"photo {index}"
            try:
                record = self._source[index]
                name = record["name"]
                decode(record["image"], record["label"])
            except Exception as found:
                error = found
                break
        else:
            name = "a record of the dataset"
        reason = " ".join(str(error).split()).rpartition(": ")[2]
        return UserError(f"{name}: cannot be decoded ({reason[:200]}): prepare the dataset again")

    def _is_self(self, position: int) -> bool:
        numerator, denominator = self._share.as_integer_ratio()
        return (position + 1) * numerator // denominator > position * numerator // denominator

    def _fail(self, message: str) -> UserError:
        self._failures.append(UserError(message))
        return self._failures[-1]


def _examples(
    positions: Any,
    reader: _Reader,
    size: int,
    num_classes: int,
    threads: int | None,
    keys: tuple[str, ...],
) -> Any:
    """A tf.data.Dataset of single examples, in order, from one of positions in the stream."""
    tf = import_tensorflow()
    threads = threads or min(16, os.cpu_count() or 1)

    @tf.autograph.experimental.do_not_convert
    def example(position):
        index = reader.index(position)
        image, label, name, boxes, mirrored = tf.numpy_function(
            reader.load, [position, index], [tf.string, tf.string, tf.string, tf.int32, tf.bool]
        )
        boxes = tf.ensure_shape(boxes, [2, 3])
        image, label = decode(image, label)
        largest = tf.cast(tf.reduce_max(label), tf.int32)
        fits = tf.reduce_all(tf.shape(image)[:2] == tf.shape(label)[:2]) & (largest <= num_classes)
        facts = [name, tf.shape(image), tf.shape(label), largest, tf.constant(num_classes)]
        fits = tf.cond(fits, lambda: fits, lambda: tf.numpy_function(reader.refuse, facts, tf.bool))
        with tf.control_dependencies([fits]):
            target_patch, target_map = cut_patch(image, label, boxes[0], size, mirrored)
            exemplar_patch, exemplar_map = cut_patch(image, label, boxes[1], size, mirrored)
        values = {
            "image": target_patch, "label": target_map,
            "exemplar": exemplar_patch, "exemplar_label": exemplar_map,
            "name": name, "index": index, "boxes": boxes,
        }  # fmt: skip
        return {key: values[key] for key in keys}

    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    # A pool of its own, one thread per op: the step's computation keeps its cores.
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return positions.map(example, num_parallel_calls=threads, deterministic=True).with_options(options)
