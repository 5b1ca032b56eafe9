"""The classes of a dataset: names, colours, and which id in its files means "unlabelled"."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mscaflax.errors import UserError
from mscaflax.files import expanded

# Label maps are stored as 8-bit images, and the id C is taken by "unlabelled".
MAX_CLASSES = 255


@dataclass(frozen=True)
class ClassTable:
    """Names and colours of C classes; the id C means "unlabelled".

    Attributes:
        names: C class names, in the order of their ids.
        palette: C distinct colours, (red, green, blue) in 0..255.
        ignore: the value that label files use for "unlabelled", 0..255. In memory and in prepared datasets
            it is always C. If it is also the id of a class, that class means "unlabelled".

    Raises:
        UserError: the names and the palette do not fit together.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore: int = 255

    def __post_init__(self):
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "palette", tuple(tuple(colour) for colour in self.palette))
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise UserError(f"{len(self.names)} classes: give between 1 and {MAX_CLASSES}")
        for name in self.names:
            if not isinstance(name, str) or not name.strip():
                raise UserError(f"the class name {name!r} is not a text: give every class a name")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise UserError(f"the class name {repeated[0]!r} occurs twice: names must differ")
        if len(self.palette) != len(self.names):
            raise UserError(
                f"{len(self.names)} classes but {len(self.palette)} colours: give one colour for each class"
            )
        for name, colour in zip(self.names, self.palette, strict=True):
            if len(colour) != 3 or not all(_is_byte(value) for value in colour):
                raise UserError(f"the colour {list(colour)} of {name!r} is not three integers in 0..255")
        owner: dict[tuple[int, int, int], str] = {}
        for name, colour in zip(self.names, self.palette, strict=True):
            if colour in owner:
                raise UserError(
                    f"{owner[colour]!r} and {name!r} share the colour {list(colour)}: colours must differ"
                )
            owner[colour] = name
        if not _is_byte(self.ignore):
            raise UserError(f"the ignore value {self.ignore!r} is not an integer in 0..255")

    @property
    def num_classes(self) -> int:
        """C, which is also the id of "unlabelled"."""
        return len(self.names)

    @cached_property
    def palette_array(self) -> np.ndarray:
        """Colours by id, uint8 [C+1, 3]; the last, for "unlabelled", is black or the nearest free colour."""
        used = set(self.palette)
        # 512 dark shades by their distance from black; at most 255 of them are taken.
        shades = sorted(
            ((r, g, b) for r in range(8) for g in range(8) for b in range(8)),
            key=lambda c: (sum(value * value for value in c), c),
        )
        unlabelled = next(colour for colour in shades if colour not in used)
        return np.array([*self.palette, unlabelled], np.uint8)

    @property
    def allowed(self) -> str:
        """The ids that a label file may hold, in words, for messages."""
        return f"0..{self.num_classes - 1}, or {self.ignore} for unlabelled"

    def colorize(self, label: np.ndarray) -> np.ndarray:
        """Paints label maps in the palette.

        Args:
            label: integers [..., h, w] in 0..C.

        Returns:
            uint8 [..., h, w, 3].

        Raises:
            UserError: an id lies outside 0..C.
        """
        label = np.asarray(label)
        low, high = (label.min(), label.max()) if label.size else (0, 0)
        if low < 0 or high > self.num_classes:
            raise UserError(f"the label ids {low}..{high} do not lie in 0..{self.num_classes}")
        return self.palette_array[label]

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values, in the form of a `classes.json` file."""
        return {
            "classes": list(self.names),
            "palette": [list(colour) for colour in self.palette],
            "ignore": self.ignore,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ClassTable":
        """The inverse of `to_json`.

        Args:
            value: `{"classes": [names], "palette": [[r, g, b], ...], "ignore": 255}`; ignore may be left out.

        Raises:
            UserError: a key is missing or a value is out of range.
        """
        if not isinstance(value, Mapping):
            raise UserError("the class table is not a JSON object with the keys classes, palette and ignore")
        for key in ("classes", "palette"):
            if not isinstance(value.get(key), (list, tuple)):
                raise UserError(f"the class table lacks the list {key!r}")
        for colour in value["palette"]:
            if not isinstance(colour, (list, tuple)):
                raise UserError(f"the palette entry {colour!r} is not a list [r, g, b]")
        return cls(value["classes"], value["palette"], value.get("ignore", 255))


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def read_classes_file(path: str | Path) -> ClassTable:
    """Reads a `classes.json`: `{"classes": [names], "palette": [[r, g, b], ...], "ignore": 255}`.

    Raises:
        UserError: the file is missing, is not JSON, or its content does not make a class table; the message
            names the file.
    """
    try:
        value = json.loads(expanded(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the classes file {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path} is not a JSON file: {error}") from None
    try:
        return ClassTable.from_json(value)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
