"""What a dataset is made from: folders of photos and label maps, COCO-Stuff's layout, or the scenes.

Free of TensorFlow: the worker processes of `mscaflax prepare` import this module.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mscaflax.data import scenes
from mscaflax.data.classes import ClassTable, read_classes_file
from mscaflax.data.coco_stuff import coco_stuff_classes
from mscaflax.data.images import encode_png, photo_record, read_label_map
from mscaflax.errors import UserError
from mscaflax.files import expanded

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
LABEL_SUFFIX = ".png"
# Raised when the form of the stored records changes, so that older datasets are made again.
_RECORD_FORM = 1
# Files are hashed in parallel: hashing and reading leave Python to the other threads.
_HASH_THREADS = 8


@dataclass(frozen=True)
class PhotoItem:
    """A photo and its label map, to be read."""

    name: str
    image: str
    label: str


@dataclass(frozen=True)
class SceneItem:
    """A scene, to be rendered."""

    split: str
    index: int


@dataclass(frozen=True)
class Inputs:
    """Everything that determines a dataset.

    Attributes:
        name: the dataset's name.
        description: one line for people.
        classes: its classes.
        splits: the items of each split.
        make: turns an item into an example, a dict of `image` (JPEG or PNG bytes), `label` (PNG bytes, uint8
            [h, w] in 0..C) and `name`; raises UserError for an item that cannot be used. Picklable, as are
            the items, since worker processes run it.
        problems: what is wrong with the file lists, one message a file.
        fingerprint: a digest of names, files' contents, classes and options, the same on every machine; it
            changes when the dataset would.
        generated: nothing in it comes from the user, so an outdated dataset may be replaced unasked.
    """

    name: str
    description: str
    classes: ClassTable
    splits: Mapping[str, tuple[Any, ...]]
    make: Callable[[Any], dict[str, Any]]
    problems: tuple[str, ...]
    fingerprint: str
    generated: bool = False

    @property
    def num_items(self) -> int:
        """Items in all splits together."""
        return sum(map(len, self.splits.values()))


def photo_example(item: PhotoItem, *, classes: ClassTable) -> dict[str, Any]:
    """Reads and checks a photo and its label map.

    Raises:
        UserError: either file cannot be read, whatever a decoder makes of it, the map holds an id that is not
            a class, or the sizes differ.
    """
    path = item.label
    try:
        # The map first: it is small, and its errors are the common ones.
        label = read_label_map(item.label, classes)
        path = item.image
        image, size = photo_record(item.image)
    except UserError:
        raise
    except Exception as error:
        # Damaged files raise nearly every type there is, and one of them must not end a run over thousands.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{path}: cannot be used: {reason}") from error
    if label.shape != size:
        raise UserError(
            f"{item.label}: the label map is {label.shape[1]}x{label.shape[0]} but its photo {item.image} "
            f"is {size[1]}x{size[0]} (width x height, upright): the sizes must be equal"
        )
    return {"image": image, "label": encode_png(label.astype("uint8")), "name": item.name}


def scene_example(item: SceneItem, *, size: tuple[int, int] = scenes.SIZE) -> dict[str, Any]:
    """Renders a scene at `size` (h, w); `scenes.scene_name` names it."""
    layout, style = scenes.scene(item.split, item.index)
    image, label = scenes.render(layout, style, size)
    return {
        "image": encode_png(image),
        "label": encode_png(label.astype("uint8")),
        "name": scenes.scene_name(item.split, item.index),
    }


def folder_inputs(name: str, images: str | Path, annotations: str | Path, classes_file: str | Path) -> Inputs:
    """A dataset from `images/SPLIT/NAME.jpg` (or .png, ...) and `annotations/SPLIT/NAME.png`.

    Args:
        name: the dataset's name.
        images: a folder with a folder of photos for each split.
        annotations: a folder with the label maps, in the same splits, under the photos' names.
        classes_file: a `classes.json`.

    Raises:
        UserError: a folder or the classes file is missing or unusable. What is wrong with single files is
            in `problems` instead.
    """
    classes = read_classes_file(classes_file)
    images, annotations = _folder(images, "--images"), _folder(annotations, "--annotations")
    names = sorted(entry.name for entry in images.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if not names:
        raise UserError(f"{images} holds no folders: put the photos of a split in {images / 'train'}")
    for split in names:
        if not split.isidentifier() or split.lower() == "all":
            raise UserError(f"{images / split}: {split!r} cannot name a split: use letters and digits")
    folders = {split: (images / split, annotations / split) for split in names}
    return _photo_inputs(name, f"Photos and label maps of {name}", classes, folders)


def coco_stuff_inputs(name: str, source: str | Path) -> Inputs:
    """COCO-Stuff (Caesar, Uijlings, Ferrari, CVPR 2018) in its official layout, 182 classes.

    Args:
        name: the dataset's name.
        source: a folder with `{train,val}2017/*.jpg` and `stuffthingmaps/{train,val}2017/*.png`.

    Raises:
        UserError: one of the four folders is missing.
    """
    source = _folder(source, "--source")
    maps = source / "stuffthingmaps"
    folders = {split: (source / f"{split}2017", maps / f"{split}2017") for split in ("train", "val")}
    for folder in (folder for pair in folders.values() for folder in pair):
        _folder(folder, "part of COCO-Stuff's layout")
    return _photo_inputs(name, "COCO-Stuff: COCO 2017 with things and stuff", coco_stuff_classes(), folders)


def scenes_inputs(
    name: str = "scenes", counts: Mapping[str, int] | None = None, size: tuple[int, int] = scenes.SIZE
) -> Inputs:
    """The embedded landscapes and streets.

    Args:
        name: the dataset's name.
        counts: scenes per split; None for 4000 train, 200 val, 200 test.
        size: (h, w) of the renders.
    """
    counts = dict(scenes.SPLITS if counts is None else counts)
    classes = ClassTable(scenes.CLASS_NAMES, scenes.PALETTE)
    return Inputs(
        name=name,
        description="Procedural landscapes and streets",
        classes=classes,
        splits={split: tuple(SceneItem(split, i) for i in range(count)) for split, count in counts.items()},
        make=partial(scene_example, size=tuple(size)),
        problems=(),
        fingerprint=_fingerprint(
            classes, {"counts": counts, "size": list(size), "renderer": scenes.RENDERER_VERSION}
        ),
        generated=True,
    )


def _folder(path: str | Path, meaning: str) -> Path:
    path = expanded(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder ({meaning}): check the path")
    return path


def _photo_inputs(
    name: str, description: str, classes: ClassTable, folders: Mapping[str, tuple[Path, Path]]
) -> Inputs:
    splits, problems, listing = {}, [], []
    for split, (image_folder, label_folder) in folders.items():
        photos = _files(image_folder, PHOTO_SUFFIXES)
        labels = _files(label_folder, (LABEL_SUFFIX,)) if label_folder.is_dir() else {}
        if not photos:
            raise UserError(f"{image_folder} holds no photos ({', '.join(PHOTO_SUFFIXES)})")
        items = []
        for stem in sorted(photos.keys() | labels.keys()):
            paths, maps = photos.get(stem, []), labels.get(stem, [])
            if not maps:
                problems.append(f"{paths[0]}: no label map {label_folder / (stem + LABEL_SUFFIX)}")
            elif not paths:
                problems.append(f"{maps[0]}: no photo {image_folder / stem}.jpg (or another photo format)")
            elif len(paths) + len(maps) > 2:
                problems.append(f"{paths[-1]}: the name {stem!r} occurs more than once in {split}")
            else:
                items.append(PhotoItem(stem, str(paths[0]), str(maps[0])))
        splits[split] = tuple(items)
        listing += [
            (split, kind, path)
            for kind, group in (("image", photos), ("label", labels))
            for stem in sorted(group)
            for path in group[stem]
        ]
    return Inputs(
        name=name,
        description=description,
        classes=classes,
        splits=splits,
        make=partial(photo_example, classes=classes),
        problems=tuple(problems),
        fingerprint=_fingerprint(classes, {"files": _digests(listing)}),
    )


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """The files of a folder by their stem; hidden files and other suffixes are left alone."""
    files: dict[str, list[Path]] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in suffixes and stem and stem[0] != "." and entry.is_file():
                files.setdefault(stem, []).append(folder / entry.name)
    return files


def _digests(listing: list[tuple[str, str, Path]]) -> list[list[str]]:
    """(split, kind, path) to [split, kind, name, digest of the content].

    Contents, since sizes and times do not tell: an edited label map may keep its size, and a copy of the same
    photos, which has other times, must have the same fingerprint.
    """

    def digest(path: Path) -> str:
        try:
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:  # reported when the example is made
            return "unreadable"

    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        digests = pool.map(digest, [path for *_, path in listing])
        pairs = zip(listing, digests, strict=True)
        return [[split, kind, path.name, found] for (split, kind, path), found in pairs]


def _fingerprint(classes: ClassTable, rest: Mapping[str, Any]) -> str:
    content = {"form": _RECORD_FORM, "classes": classes.to_json(), **rest}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
