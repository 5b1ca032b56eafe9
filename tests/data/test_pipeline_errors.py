"""What the input pipeline says of records and arguments that it cannot use, and how it ends."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mscaflax.data.pipeline import pair_batches
from mscaflax.errors import UserError

CLASSES = 9


def encode(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def photo(pixels, label, name):
    return {"image": encode(pixels), "label": encode(label), "name": name}


def batches(source, **changes):
    options = {"size": 8, "num_classes": CLASSES, "batch_size": 4, "seed": 5, "threads": 2} | changes
    return pair_batches(source, **options)


@pytest.fixture(scope="module")
def source():
    """Ten photos; all of photo i is labelled i."""
    blank = np.zeros((20, 40, 3), np.uint8)
    return [photo(blank, np.full((20, 40), i, np.uint8), f"photo{i}") for i in range(10)]


def bad(**changes):
    blank = np.zeros((20, 40, 3), np.uint8)
    return photo(blank, np.zeros((20, 40), np.uint8), "culprit") | changes


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (bad(label=encode(np.full((20, 40), CLASSES + 1, np.uint8))), "culprit.*label.*10.*outside"),
        (bad(label=encode(np.zeros((20, 41), np.uint8))), "culprit: photo 40x20, label map 41x20.*differ"),
        (bad(label=b"not a map"), "culprit.*PNG"),
        (bad(image=b"\xff\xd8 not a photo"), "^culprit: cannot be decoded.*JPEG.*prepare the dataset again"),
        (photo(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8), "culprit"), "culprit.*too small"),
    ],
)
def test_bad_records_are_named(record, message):
    with pytest.raises(UserError, match=message) as info:
        next(batches([record]))
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("both_directions", [False, True])
def test_a_record_that_cannot_be_decoded_is_named_in_the_middle_of_a_run(source, both_directions):
    broken = list(source)
    broken[7] = broken[7] | {"image": b"\xff\xd8 not a photo"}
    options = {"both_directions": both_directions, "start_step": 1, "process_index": 1, "process_count": 2}
    iterator = batches(broken, **options)
    seen = set()
    with pytest.raises(UserError, match=r"^photo7: cannot be decoded \(.*JPEG"):
        for _ in range(20):
            seen |= set(next(iterator)["label"][:, 0, 0].tolist())
    assert 7 not in seen and seen <= set(range(10))


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 6, "process_count": 4},
        {"batch_size": 0},
        {"batch_size": 3, "both_directions": True},
        {"process_index": 2, "process_count": 2},
        {"start_step": -1},
        {"self_share": 1.5},
        {"seed": -1},
        {"side_range": (0.5,)},
    ],
)
def test_bad_arguments_are_refused(source, changes):
    with pytest.raises(UserError):
        batches(source, **changes)
    with pytest.raises(UserError, match="no photos"):
        batches([])


STOPS_IN_MID_STREAM = """
import io, time
import numpy as np
from PIL import Image
from mscaflax.data.pipeline import pair_batches

def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()

class Slow(list):
    def __getitem__(self, index):
        time.sleep(0.05)
        return super().__getitem__(index)

photo, label = np.zeros((40, 80, 3), np.uint8), np.zeros((40, 80), np.uint8)
record = {"image": png(photo), "label": png(label), "name": "a"}
batches = pair_batches(Slow([record]), size=8, num_classes=1, batch_size=4, seed=0, prefetch=8, threads=4)
next(batches)
"""


@pytest.mark.slow
def test_a_program_that_stops_in_mid_stream_exits():
    # Reads are in flight when the interpreter shuts down.
    command = [sys.executable, "-c", STOPS_IN_MID_STREAM]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "WARNING" not in result.stderr, result.stderr[-2000:]
