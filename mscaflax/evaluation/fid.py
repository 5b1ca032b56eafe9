"""The features of FID, from the weights that pytorch-fid uses.

FID is the Fréchet distance of the features of one certain Inception-v3 (Heusel, Ramsauer, Unterthiner,
Nessler, Hochreiter, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
NeurIPS 2017): `frechet_distance` of the `Moments` (`mscaflax.evaluation.frechet`) of `inception_features`.
The weights are not shipped: the user has their file, or there is no FID. Network, resize and scaling are
those of pytorch-fid 0.3, and so are the numbers.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mscaflax.data.pixels import to_uint8
from mscaflax.errors import UserError
from mscaflax.evaluation.torch_file import load_state_dict
from mscaflax.nets.inception import FEATURES, SIZE, InceptionV3

WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"
SHA256_BEGINS = "6726825d"  # of that file, as PyTorch names the files that it hosts
_EPSILON = 1e-3  # of the network's batch normalizations
_NORMALIZATION = ("weight", "bias", "running_mean", "running_var")

Params = dict[str, Any]


def _kernel_shapes() -> dict[str, tuple[int, ...]]:
    """The shapes [kh, kw, in, out] of the network's convolutions, by their name in the file."""
    network = jax.eval_shape(
        InceptionV3().init, jax.random.key(0), jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    )
    flat, _ = jax.tree.flatten_with_path(network["params"])
    return {
        ".".join(key.key for key in path[:-1]): leaf.shape for path, leaf in flat if path[-1].key == "kernel"
    }


def _expected_shapes(kernels: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes of the file's tensors by name."""
    shapes = {}
    for name, (height, width, inputs, outputs) in kernels.items():
        shapes[f"{name}.conv.weight"] = (outputs, inputs, height, width)
        shapes |= {f"{name}.bn.{part}": (outputs,) for part in _NORMALIZATION}
    # The classifier is not used. Its 1008 classes tell the file from weights of torchvision's network.
    return shapes | {"fc.weight": (1008, FEATURES), "fc.bias": (1008,)}


def _and_more(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _difference(tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> str | None:
    """What tells the tensors from those expected, in a few words; None if nothing does."""
    if missing := [name for name in expected if name not in tensors]:
        return f"it lacks {_and_more(missing)}"
    # Newer versions of PyTorch count batches beside each normalization.
    found = [name for name in tensors if not name.endswith(".bn.num_batches_tracked")]
    if unknown := [name for name in found if name not in expected]:
        return f"it holds the unknown tensor {_and_more(unknown)}"
    if misshapen := [name for name, shape in expected.items() if tensors[name].shape != shape]:
        name, *more = misshapen
        others = f", and {len(more)} more are misshapen" if more else ""
        return f"its {name} has the shape {tensors[name].shape} instead of {expected[name]}{others}"
    if damaged := [name for name in expected if not _plausible(name, tensors[name])]:
        return f"its {_and_more(damaged)} holds values that no training leaves"
    return None


def _plausible(name: str, tensor: np.ndarray) -> bool:
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        return False
    lowest = 0 if name.endswith(".running_var") else -np.inf
    return bool(((tensor >= lowest) & (abs(tensor) < np.inf)).all())


def load_inception(path: str | os.PathLike[str]) -> Params:
    """Reads the weights of FID's Inception-v3 from a file that the user has.

    Args:
      path: pt_inception-2015-12-05-6726825d.pth, which pytorch-fid downloads from its own releases, as it is
        or saved again by `torch.save`. PyTorch is not needed.

    Returns:
      The parameters of `mscaflax.nets.inception.InceptionV3`, float32, numpy, 87 MB: one kernel and one bias
      for each convolution together with its batch normalization.

    Raises:
      UserError: the file cannot be read, or holds other tensors than this network's. Values are not compared:
        whether these are the weights of FID is the user's word.
    """
    tensors = load_state_dict(path)
    kernels = _kernel_shapes()
    if difference := _difference(tensors, _expected_shapes(kernels)):
        raise UserError(f"{path} is not {WEIGHTS_FILE}, the weights that pytorch-fid uses: {difference}")
    params: Params = {}
    for name in kernels:
        weight, scale, bias, mean, variance = (
            np.asarray(tensors[f"{name}.{part}"], np.float64)
            for part in ("conv.weight", *(f"bn.{part}" for part in _NORMALIZATION))
        )
        scale = scale / np.sqrt(variance + _EPSILON)
        module = params
        for part in name.split("."):
            module = module.setdefault(part, {})
        module["kernel"] = (weight.transpose(2, 3, 1, 0) * scale).astype(np.float32)
        module["bias"] = (bias - mean * scale).astype(np.float32)
    return params


def file_identity(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Which file gave the weights: {"sha256", "original"}, whether it is pytorch-fid's own, byte for byte.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return {"sha256": digest, "original": digest.startswith(SHA256_BEGINS)}


# Apart from the network, so that images of another size do not compile it anew.
@jax.jit
def _resize(images: jax.Array) -> jax.Array:
    shape = (images.shape[0], SIZE, SIZE, 3)
    resized = jax.image.resize(images.astype(jnp.float32) / 255, shape, "bilinear", antialias=False)
    return resized * 2 - 1


@jax.jit
def _apply(params: Params, images: jax.Array) -> jax.Array:
    return InceptionV3().apply({"params": params}, images)


def inception_features(params: Params, images: np.ndarray) -> np.ndarray:
    """The features whose Fréchet distance is FID, one vector per image.

    The image is resized to 299 × 299 as pytorch-fid does it (bilinear, half-pixel centres, no antialiasing),
    scaled to [-1, 1], and passed through the network in float32 at the highest precision.

    Args:
      params: of `load_inception`; put them on the device once where this is called often.
      images: [b, h, w, 3], uint8 or float in [-1, 1] (rounded to 8 bits), all in one batch. Every new b is
        compiled anew; another h or w costs next to nothing.

    Returns:
      float32 [b, 2048], at least 0.

    Raises:
      ValueError: images of another rank, empty or not finite.
    """
    images = to_uint8(images)
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise ValueError(f"images must be [b, h, w, 3] and not empty, got {images.shape}")
    return np.asarray(_apply(params, _resize(images)))
