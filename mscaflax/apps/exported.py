"""The file of `mscaflax export`, read and called. How to do without this package stands in docs/deploy.md."""

import io
import json
import struct
import zipfile
import zlib

import jax
import numpy as np
from jax import export

from mscaflax.apps.synthesizer import check_seed
from mscaflax.data.classes import ClassTable
from mscaflax.data.pixels import to_float
from mscaflax.errors import UserError
from mscaflax.files import expanded

FORMAT = "mscaflax exported 1"
MODEL, PROGRAM, WEIGHTS = "model.json", "program.bin", "weights.npz"

# What zipfile, numpy, json and flatbuffers say about files that are not what they should be.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, IndexError, TypeError, ValueError,
    NotImplementedError, RuntimeError, AssertionError,
)  # fmt: skip


class ExportedModel:
    """A model from a file of `mscaflax export`; a call makes a batch of pictures.

    Attributes:
      classes: the ClassTable, whose ids label maps are written in; C = `classes.num_classes` is unlabelled.
      size_multiple: heights and widths must be multiples of it.
      min_side, max_side: the least and the greatest height or width.
      patch_size: side of the training patches in pixels: things should have the size they had there.
      step: training steps behind the parameters.
      platforms: what the program was made for, as JAX names it: cpu, cuda, tpu.
      description: all of `model.json`, with the config and the versions that made it.
    """

    def __init__(self, description, program, weights):
        """`description`: of model.json; `program`: a jax.export.Exported; `weights`: its {name: array}.

        Raises:
          UserError: no classes in the description.
          KeyError, ValueError: a size is missing, or is no whole number above 0.
        """
        self.description = description
        self.classes = ClassTable.from_json(description)
        for name in ("size_multiple", "min_side", "max_side", "patch_size", "step"):
            value = description[name]
            # A step of 0 is a model that was not trained yet.
            if not isinstance(value, int) or value < (name != "step"):
                raise ValueError(f"its {name} is {value!r}")
            setattr(self, name, value)
        self.platforms = tuple(program.platforms)
        self._weights = jax.device_put(weights)
        self._generate = jax.jit(program.call)

    def __call__(self, label, exemplar, exemplar_label, *, seed=0):
        """Synthesizes a batch; the first call with a new size compiles for it.

        Args:
          label: [b, h, w] integers in 0..C, C = unlabelled.
          exemplar: [b, h', w', 3] floats in [-1, 1], or uint8 RGB.
          exemplar_label: [b, h', w'] integers in 0..C.
          seed: of the texture noise, 0 .. 2^32-1; the same seed gives the same picture in any
            batch, but for rounding.

        Returns:
          [b, h, w, 3] float32 numpy array in [-1, 1]; (x + 1) * 127.5 are 8-bit levels.

        Raises:
          UserError: a wrong shape or dtype, a size that is not legal, a value that is out of range.
        """
        check_seed(seed)
        label = self._check_label("label", label)
        exemplar_label = self._check_label("exemplar_label", exemplar_label)
        exemplar = _check_exemplar(exemplar)
        if exemplar.shape[:3] != exemplar_label.shape:
            raise UserError(
                f"the exemplar is {list(exemplar.shape)}, exemplar_label {list(exemplar_label.shape)}: "
                "they must have equal batch, height and width"
            )
        if len(label) != len(exemplar):
            raise UserError(
                f"there are {len(label)} label maps and {len(exemplar)} exemplars: give one for each"
            )
        return np.asarray(self._generate(self._weights, label, exemplar, exemplar_label, np.uint32(seed)))

    def _check_label(self, name, label):
        label = np.asarray(label)
        if label.ndim != 3 or not np.issubdtype(label.dtype, np.integer) or 0 in label.shape:
            raise UserError(f"{name} must be integers [b, h, w], got {label.dtype} {list(label.shape)}")
        h, w = label.shape[1:]
        if any(x % self.size_multiple or not self.min_side <= x <= self.max_side for x in (h, w)):
            raise UserError(
                f"{name} is {w}x{h} pixels: sides must be multiples of {self.size_multiple} in "
                f"{self.min_side}..{self.max_side}"
            )
        count = self.classes.num_classes
        if label.min() < 0 or label.max() > count:
            raise UserError(
                f"{name} holds {label.min()}..{label.max()}, allowed are 0..{count} ({count} = unlabelled)"
            )
        return label.astype(np.int32)


def _check_exemplar(exemplar):
    exemplar = np.asarray(exemplar)
    numbers = exemplar.dtype == np.uint8 or np.issubdtype(exemplar.dtype, np.floating)
    if exemplar.ndim != 4 or exemplar.shape[-1] != 3 or not numbers:
        raise UserError(
            "exemplar must be floats in -1..1 or uint8, [b, h, w, 3], got "
            f"{exemplar.dtype} {list(exemplar.shape)}"
        )
    if exemplar.dtype == np.uint8:
        return to_float(exemplar)
    # A resized photo may reach a little beyond.
    if not (np.abs(exemplar) <= 1.01).all():
        raise UserError(
            f"exemplar holds {exemplar.min():g}..{exemplar.max():g}: floats must lie in -1..1 (or give uint8)"
        )
    return exemplar.astype(np.float32)


def load_exported(path):
    """Loads a file of `mscaflax export`; nothing in it is unpickled or run as Python.

    Returns:
      An ExportedModel.

    Raises:
      UserError: there is no such file, it cannot be read, it is damaged, or it is another file.
    """
    path = expanded(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}: make one with `mscaflax export`")
    try:
        with zipfile.ZipFile(path) as file:
            found = {MODEL, PROGRAM, WEIGHTS} & set(file.namelist())
            members = {name: file.read(name) for name in found}  # each is held against its CRC-32
    except _DAMAGED as error:
        raise UserError(
            f"{path} is damaged, or no file of `mscaflax export` ({error}): get it again"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        description = json.loads(members[MODEL])
        if description["format"] != FORMAT:
            raise ValueError(f"its format is {description['format']!r}, not {FORMAT!r}")
        program = export.deserialize(bytearray(members[PROGRAM]))
        weights = dict(np.load(io.BytesIO(members[WEIGHTS]), allow_pickle=False))
        return ExportedModel(description, program, weights)
    except (*_DAMAGED, UserError) as error:
        said = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{path} was not written by this version of `mscaflax export` ({said}): export the model again"
        ) from None
