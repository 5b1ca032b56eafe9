"""Prepared datasets: finding them, their classes, and random access to their encoded images."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mscaflax.data.classes import ClassTable
from mscaflax.data.tensorflow import import_tfds
from mscaflax.errors import UserError

METADATA_KEY = "mscaflax"
INFO_FILE = "dataset_info.json"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Source:
    """Random access to one split; nothing is decoded.

    `source[i]` is a dict:
        image: bytes of a JPEG or PNG file, RGB, upright.
        label: bytes of a PNG file, uint8 [h, w] in 0..C, C = unlabelled, of the image's size.
        name: str, unique in the split.
    """

    def __init__(self, records: Sequence[dict[str, Any]]):
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        # array_record raises ValueError beyond the end, which a for loop would not take for the end.
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        record = self._records[index]
        return {"image": record["image"], "label": record["label"], "name": record["name"].decode()}


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset.

    Attributes:
        name: its name.
        classes: names and colours of its C classes.
        splits: number of examples per split.
        path: the folder (or bucket address) that holds its files.
        metadata: what `mscaflax prepare` recorded: fingerprint of the input, files left out.
    """

    name: str
    classes: ClassTable
    splits: dict[str, int]
    path: str
    metadata: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """A digest of the input it was made from: the same wherever the same input was prepared."""
        return self.metadata["fingerprint"]

    def source(self, split: str) -> Source:
        """Random access to a split, e.g. "train" or "train[:10%]" (the notation of TFDS).

        Raises:
            UserError: the dataset has no such split, or nothing is in the part that is asked for.
        """
        if split.split("[")[0] not in self.splits:
            known = ", ".join(self.splits)
            raise UserError(
                f"the dataset {self.name} has no split {split!r}; it has {known}: name another by "
                "--config.data.train_split, --config.data.val_split or --split"
            )
        tfds = import_tfds()
        skip = tfds.decode.SkipDecoding()
        builder = tfds.builder_from_directory(self.path)
        try:
            records = builder.as_data_source(split, decoders={"image": skip, "label": skip})
            empty = not len(records)
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{split!r} is not a slice of a split of {self.name}, or is empty: {reason}"
            ) from None
        if empty:
            raise UserError(f"the split {split!r} of {self.name} is empty")
        return Source(records)


def default_data_dir() -> str:
    """Where datasets lie unless told otherwise: $TFDS_DATA_DIR, else ~/tensorflow_datasets, as in TFDS."""
    return os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")


def check_name(name: str) -> str:
    """Returns `name` if it can name a dataset.

    Raises:
        UserError: it is not made of small letters, digits and underscores, beginning with a letter.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot name a dataset: use small letters, digits and underscores, a letter first"
        )
    return name


def prepare_command(name: str, data_dir: str) -> str:
    """The command that makes the dataset `name` in `data_dir`, to be shown to a user."""
    inputs = {"scenes": "", "coco_stuff": " --source=DIR"}.get(
        name, " --images=DIR --annotations=DIR --classes=FILE"
    )
    return f"mscaflax prepare --name={name}{inputs} --data_dir={shlex.quote(str(data_dir))}"


def open_dataset(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Opens a dataset that `mscaflax prepare` made.

    Args:
        name: its name.
        data_dir: the folder above it, local or on a bucket (`gs://`, readable by TensorFlow); None for
            `default_data_dir()`.

    Raises:
        UserError: it is not there, or is not one of ours; the message names the command that makes it.
    """
    check_name(name)
    tfds = import_tfds()
    from etils import epath

    root = epath.Path(data_dir or default_data_dir()).expanduser()
    versions = []
    if (root / name).exists():
        versions = [
            folder
            for folder in (root / name).iterdir()
            if tfds.core.Version.is_valid(folder.name) and (folder / INFO_FILE).exists()
        ]
    if not versions:
        raise UserError(
            f"no dataset {name!r} in {root}; make it with: {prepare_command(name, root)} "
            "(or name the folder that holds it: --data_dir=DIR, for `mscaflax train` "
            "--config.data.data_dir=DIR)"
        )
    path = max(versions, key=lambda folder: tfds.core.Version(folder.name))
    return read_dataset(path)


def read_dataset(path: str | os.PathLike) -> Dataset:
    """Opens the prepared dataset in the folder `path` (`DATA_DIR/NAME/VERSION`).

    Raises:
        UserError: the folder holds a dataset that `mscaflax prepare` did not make.
    """
    builder = import_tfds().builder_from_directory(path)
    metadata = builder.info.metadata
    if not metadata or METADATA_KEY not in metadata:
        raise UserError(f"{path} was not made by `mscaflax prepare`: choose another --name or --data_dir")
    ours = metadata[METADATA_KEY]
    return Dataset(
        name=builder.name,
        classes=ClassTable.from_json(ours["classes"]),
        splits={split: info.num_examples for split, info in builder.info.splits.items()},
        path=os.fspath(path),
        metadata=ours,
    )
