"""Convolutions of maps that are hardly larger than the kernel, as matrix products.

XLA swaps a map with a kernel that is larger, and its CPU backend (jax 0.10.2) runs what comes out in plain
loops, tens of times slower than a product (`benchmarks/small_maps.py`): for VGG's last stage of 32×32 images
that was two thirds of a train step. So it is with the gradients of narrow strips, which
`convolution.py` takes of maps of 4×4 positions, too.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

# Positions up to which the gradients of `edge_convolution` are products.
SMALL_MAP = 16


def is_small(x: jax.Array, positions: int = SMALL_MAP) -> bool:
    """Whether a map [b, h, w, c] has at most so many positions.

    False where it is not known, that is, where a model of any size is exported and h or w is symbolic.
    """
    sides = x.shape[1:3]
    return all(isinstance(side, int) for side in sides) and math.prod(sides) <= positions


def convolve_by_product(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: int = 0,
    precision: lax.Precision | None = None,
) -> jax.Array:
    """A convolution as one matrix product, its windows side by side: for maps that are `is_small`.

    Products and sums are as exact as a convolution's: in bfloat16, too, a map's gradient, the sum of its
    windows', is summed in float32.

    Args:
      x: [b, h, w, in].
      kernel: [kh, kw, in, out].
      stride, padding: of both axes; padding by zeros, before and after.
      precision: of the product.

    Returns:
      [b, h', w', out] with h' = (h + 2 padding - kh) // stride + 1.
    """
    height, width, _, features = kernel.shape
    dtype = x.dtype
    x = jnp.pad(x.astype(jnp.promote_types(dtype, jnp.float32)), ((0, 0), *[(padding, padding)] * 2, (0, 0)))
    rows, columns = (side - of + 1 for side, of in zip(x.shape[1:3], (height, width), strict=True))
    places = [(i, j) for i in range(height) for j in range(width)]
    windows = jnp.concatenate(
        [x[:, i : i + rows : stride, j : j + columns : stride] for i, j in places], axis=-1
    )
    return jnp.dot(windows.astype(dtype), kernel.reshape(-1, features), precision=precision)
