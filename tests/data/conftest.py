"""Small photo folders made on the spot, for the tests of datasets."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mscaflax.data.classes import ClassTable

CLASSES = ClassTable(("sky", "road", "house"), ((100, 160, 220), (90, 90, 90), (180, 80, 60)))


def smooth_photo(seed: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """A random photo, uint8 [h, w, 3]; smooth, so that JPEG keeps it to within a few levels."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize(size[::-1], Image.Resampling.BILINEAR))


def random_labels(seed: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """A label map as files hold it: uint8 [h, w] of 0..2, with a corner of 255."""
    label = np.random.default_rng(seed).integers(0, 3, size, dtype=np.uint8)
    label[:4, :4] = 255
    return label


def _make_folder(root: Path, counts: dict[str, int]) -> dict[str, Path]:
    seed = 0
    for split, count in counts.items():
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            seed += 1
            name = f"{split}{index:02d}"
            Image.fromarray(smooth_photo(seed)).save(root / "images" / split / f"{name}.jpg", quality=95)
            Image.fromarray(random_labels(seed)).save(root / "annotations" / split / f"{name}.png")
    (root / "classes.json").write_text(json.dumps(CLASSES.to_json()))
    return {
        "images": root / "images",
        "annotations": root / "annotations",
        "classes_file": root / "classes.json",
    }


@pytest.fixture(scope="session")
def classes() -> ClassTable:
    """Three classes; 255 is unlabelled in files."""
    return CLASSES


@pytest.fixture(scope="session")
def photo() -> Callable[..., np.ndarray]:
    """`photo(seed, size=(24, 32))` makes a smooth photo."""
    return smooth_photo


@pytest.fixture(scope="session")
def labels() -> Callable[..., np.ndarray]:
    """`labels(seed, size=(24, 32))` makes a label map as files hold it."""
    return random_labels


@pytest.fixture(scope="session")
def make_folder() -> Callable[[Path, dict[str, int]], dict[str, Path]]:
    """`make_folder(root, {"train": 3})` writes photos and maps; returns the arguments of `folder_inputs`."""
    return _make_folder
