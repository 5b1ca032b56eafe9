"""Weights of a model in one safetensors file: no pickle, half the size in bfloat16, readable without JAX.

Names are the paths in the tree, joined by "/": `ema/to_rgb/conv/kernel`.
"""

import hashlib
from pathlib import Path

import jax
import numpy as np

from mscaflax.errors import UserError
from mscaflax.files import write_atomically

FILE = "model.safetensors"
_FORMAT = "mscaflax 1"


def write_weights(path, tree, step):
    """Writes a tree of arrays and the training step behind it.

    Args:
      path: the file; it is replaced at once or not at all.
      tree: a pytree of dicts, tuples and flax dataclasses of arrays.
      step: int.
    """
    from safetensors.flax import save

    arrays = {name: jax.numpy.asarray(x) for name, x in flat(tree).items()}
    metadata = {"format": _FORMAT, "step": str(step), "sha256": _digest(arrays)}
    write_atomically(path, save(arrays, metadata=metadata))


def read_weights(path, abstract):
    """What `write_weights` wrote, in the types that a program wants.

    Args:
      path: the file.
      abstract: a tree of ShapeDtypeStructs; values are converted to their dtypes.

    Returns:
      (step, a tree like `abstract` of numpy arrays).

    Raises:
      UserError: the file is damaged, or it is of another network: the message names the first difference.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with safe_open(path, framework="flax") as file:
            metadata = file.metadata() or {}
            arrays = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): get or make it again") from None
    if metadata.get("format") != _FORMAT or not metadata.get("step", "").isdecimal():
        raise UserError(f"{path} was not written by this version of `mscaflax pack`: pack the workdir again")
    if metadata.get("sha256") != _digest(arrays):
        raise UserError(f"{path} is damaged (its SHA-256 is another): get or make it again")
    wanted = flat(abstract)
    for name in sorted(wanted.keys() | arrays.keys()):
        if name not in arrays or name not in wanted:
            where = "the file lacks" if name in wanted else "the network has no"
            raise UserError(f"{path} does not fit the config beside it: {where} {name}")
        if arrays[name].shape != wanted[name].shape:
            raise UserError(
                f"{path} does not fit the config beside it: {name} is {list(arrays[name].shape)}, "
                f"the network's {list(wanted[name].shape)}"
            )
    values = [arrays[name].astype(x.dtype) for name, x in wanted.items()]
    return int(metadata["step"]), jax.tree.unflatten(jax.tree.structure(abstract), values)


def _digest(arrays):
    """SHA-256 of the names and bytes of arrays: safetensors has no checksum of its own."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.asarray(arrays[name]).tobytes())
    return digest.hexdigest()


def flat(tree):
    """A pytree of dicts, lists, tuples and flax dataclasses as one dict: {path joined by "/": leaf}."""
    return {
        "/".join(map(_entry, path)): leaf for path, leaf in jax.tree.leaves_with_path(tree)
    }  # in the order of the leaves


def _entry(entry):
    return str(next(getattr(entry, kind) for kind in ("key", "name", "idx") if hasattr(entry, kind)))
