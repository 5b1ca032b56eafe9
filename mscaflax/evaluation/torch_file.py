"""PyTorch's weight files as numpy arrays, without PyTorch and without running anything of the file.

`torch.save(model.state_dict(), FILE)` has written two formats. In both, a pickle describes the tensors, and
refers to each storage, a flat buffer that tensors share, by the persistent id
`("storage", storage type, key, device, number of elements)`:

* zip, since PyTorch 1.6: an uncompressed archive of `ROOT/data.pkl`, the pickle; `ROOT/data/KEY`, the raw
  bytes of each storage; and, since 2.1, `ROOT/byteorder`, "little" or "big".
* legacy: five pickles, one after the other (a magic number, the protocol 1001, facts on the machine, the
  object, the sorted storage keys), then for each key the number of elements as 8 bytes and the raw bytes,
  little-endian on every machine. A sixth entry of its persistent ids is None or, in old files,
  `(key of the view, offset, number of elements)`: a part of that storage.

Source: PyTorch's `torch/serialization.py` and `torch/csrc/serialization.cpp`. The tar files of its first
releases and TorchScript are refused.

A pickle can run any code when it is read. This reader knows one dictionary type, one function that describes
a tensor, and the storage types by name; it refuses a file that names anything else.
"""

import io
import os
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

from mscaflax.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_ZIP_START = b"PK\x03\x04"

_STORAGE_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jax.dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ByteStorage": np.dtype("u1"),
}


class _Sealed:
    """What a pickle may name but not change: its BUILD operation would write into most other objects."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it changes what only this reader may change")


class _Function(_Sealed):
    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class _StorageType(_Sealed):
    __slots__ = ("dtype",)

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype


class _Storage(_Sealed):
    """`count` elements from element `start` of the storage `key`, which is read later."""

    __slots__ = ("count", "key", "start")

    def __init__(self, key: str, start: int, count: int):
        self.key, self.start, self.count = key, start, count


class _Tensor(_Sealed):
    """A tensor described; offset and stride count elements of its storage."""

    __slots__ = ("offset", "size", "storage", "stride")

    def __init__(self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


class _StateDict(dict):
    """Stands for OrderedDict. PyTorch hangs the modules' version numbers on it, which are dropped."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _rebuild_tensor_v2(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> _Tensor:
    fits = (
        isinstance(storage, _Storage)
        and isinstance(size, tuple)
        and isinstance(stride, tuple)
        and len(size) == len(stride)
        and all(map(_is_count, (offset, *size, *stride)))
    )
    if not fits or metadata:  # metadata marks values as stored conjugated or negated
        raise ValueError("it describes a tensor in an unknown way")
    return _Tensor(storage, offset, size, stride)


class _TensorUnpickler(pickle.Unpickler):
    """Builds dicts, lists, tuples, plain values and `_Tensor`; notes the storages in `self.storages`."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")  # texts of Python 2 are bytes, ASCII in practice
        self.storages: dict[str, tuple[np.dtype, int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Function(_StateDict)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Function(_rebuild_tensor_v2)
        if module == "torch" and name in _STORAGE_DTYPES:
            return _StorageType(_STORAGE_DTYPES[name])
        raise ValueError(
            f"it asks for {module}.{name}, which this reader does not know; nothing of it was run"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType() as kind, str(key), _, count) if _is_count(count):
                view = None
            case ("storage", _StorageType() as kind, str(key), _, count, view) if _is_count(count):
                pass
            case _:
                raise ValueError("it refers to something that is not the storage of a tensor")
        if self.storages.setdefault(key, (kind.dtype, count)) != (kind.dtype, count):
            raise ValueError("it gives one storage two types or sizes")
        match view:
            case None:
                return _Storage(key, 0, count)
            case (_, offset, size) if _is_count(offset) and _is_count(size) and offset + size <= count:
                return _Storage(key, offset, size)
            case _:
                raise ValueError("it describes a part of a storage in an unknown way")


def _unpickle(file: BinaryIO) -> tuple[Any, dict[str, tuple[np.dtype, int]]]:
    """Reads one pickle, and leaves `file` behind its end: the object, and its storages by key."""
    start = file.tell()
    try:
        operations = list(pickletools.genops(file))
    except ValueError:
        raise ValueError("its pickle is damaged or cut short") from None
    for operation, argument, position in operations:
        # Entries of the memo are numbered in turn; a table for a wild number can fill the memory.
        if operation.name in ("PUT", "LONG_BINPUT") and argument > position - start:
            raise ValueError("its pickle is damaged")
        if operation.name.startswith("EXT"):  # a way around find_class
            raise ValueError("it asks for a registered extension, which this reader does not know")
    file.seek(start)
    unpickler = _TensorUnpickler(file)
    return unpickler.load(), unpickler.storages


def _array(tensor: _Tensor, dtype: np.dtype, data: bytes) -> np.ndarray:
    if 0 in tensor.size:
        array = np.empty(tensor.size, dtype)
        array.setflags(write=False)
        return array
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.size, tensor.stride, strict=True))
    if last >= tensor.storage.count:
        raise ValueError("a tensor reaches beyond its storage: the file is damaged")
    offset = (tensor.storage.start + tensor.offset) * dtype.itemsize
    strides = [s * dtype.itemsize for s in tensor.stride]
    return np.ndarray(tensor.size, dtype, data, offset, strides)  # a view; it checks the bounds once more


def _read_record(archive: zipfile.ZipFile, name: str, size: int | None = None) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"its archive has no {name}: the file is damaged") from None
    if info.compress_type != zipfile.ZIP_STORED or size not in (None, info.file_size):
        raise ValueError(f"{name} in its archive has the wrong size: the file is damaged or was packed anew")
    return archive.read(info)


def _read_zip(file: BinaryIO) -> tuple[Any, dict[str, tuple[np.dtype, bytes]]]:
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise ValueError("its archive is damaged or cut short") from None
    with archive:
        names = archive.namelist()
        roots = [n.removesuffix("/data.pkl") for n in names if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError("it is a zip archive, but PyTorch did not write it")
        (root,) = roots
        if f"{root}/constants.pkl" in names:
            raise ValueError("it holds a TorchScript program: save its state_dict() by torch.save")
        if f"{root}/byteorder" in names and _read_record(archive, f"{root}/byteorder") != b"little":
            raise ValueError("it was written on a big-endian machine")
        tree, storages = _unpickle(io.BytesIO(_read_record(archive, f"{root}/data.pkl")))
        data = {
            key: (dtype, _read_record(archive, f"{root}/data/{key}", count * dtype.itemsize))
            for key, (dtype, count) in storages.items()
        }
    return tree, data


def _read_legacy(file: BinaryIO) -> tuple[Any, dict[str, tuple[np.dtype, bytes]]]:
    end = os.fstat(file.fileno()).st_size
    for expected in (_MAGIC, _PROTOCOL):
        found, _ = _unpickle(file)
        if type(found) is not int or found != expected:
            raise ValueError("PyTorch did not write it")
    _unpickle(file)  # facts on the machine that wrote it: nothing in the file depends on them
    tree, storages = _unpickle(file)
    keys, _ = _unpickle(file)
    if not isinstance(keys, list) or set(keys) != set(storages):
        raise ValueError("its list of storages is damaged")
    data = {}
    for key in keys:
        dtype, count = storages[key]
        if end - file.tell() < 8 + count * dtype.itemsize:
            raise ValueError("it is cut short")
        if int.from_bytes(file.read(8), "little") != count:
            raise ValueError("a storage has another size than its tensors expect: the file is damaged")
        data[key] = dtype, file.read(count * dtype.itemsize)
    return tree, data


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    head = file.read(len(_ZIP_START))
    file.seek(0)
    if head == _ZIP_START:
        tree, data = _read_zip(file)
    elif head.startswith(pickle.PROTO):
        tree, data = _read_legacy(file)
    else:
        raise ValueError("PyTorch did not write it")
    if not isinstance(tree, dict):
        raise ValueError("it holds no dict of tensors: save the model's state_dict() alone")
    for name, value in tree.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise ValueError(f"its entry {name!r:.80} is not a tensor: save the model's state_dict() alone")
    return {name: _array(tensor, *data[tensor.storage.key]) for name, tensor in tree.items()}


def load_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the tensors of a `state_dict` that `torch.save` wrote, in the zip or in the legacy format.

    Args:
      path: the .pth or .pt file.

    Returns:
      The tensors by name, in the file's order and shapes: float32, float64, float16, bfloat16 (the dtype that
      JAX uses), int64, int32 or uint8, whatever device they were on. The arrays are read-only views: those of
      tensors that shared a storage share its memory, and strides may be any.

    Raises:
      UserError: the file is missing, damaged or cut short, or holds anything but named tensors of these
        types; nothing of it was run.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # damaged pickles raise nearly every type there is
        text = " ".join(str(error).split()) or type(error).__name__
        text = "".join(c if c.isprintable() else "?" for c in text)[:300]
        raise UserError(f"cannot read {path} as a PyTorch state_dict: {text}") from None
