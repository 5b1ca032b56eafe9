"""Convolutions of maps that are hardly larger than the kernel, as matrix products.

XLA swaps a map with a kernel that is larger, and its CPU backend (jax 0.10.2) runs what comes out in plain
loops, tens of times slower than a product (`benchmarks/small_maps.py`): for VGG's last stage of 32×32 images
that was two thirds of a train step. On 4×4 maps a product is still faster, and narrow strips of such maps are
swapped, too.
"""

import jax
import jax.numpy as jnp
from jax import lax

# Positions up to which the networks' 3×3 convolutions are products.
SMALL_MAP = 16


def convolve_by_product(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: int = 0,
    precision: lax.Precision | None = None,
) -> jax.Array:
    """A convolution as one matrix product, its windows side by side: for maps smaller than the kernel.

    Args:
      x: [b, h, w, in].
      kernel: [kh, kw, in, out].
      stride, padding: of both axes; padding by zeros, before and after.
      precision: of the product.

    Returns:
      [b, h', w', out] with h' = (h + 2 padding - kh) // stride + 1.
    """
    height, width, _, features = kernel.shape
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = (side - of + 1 for side, of in zip(x.shape[1:3], (height, width), strict=True))
    places = [(i, j) for i in range(height) for j in range(width)]
    windows = [x[:, i : i + rows : stride, j : j + columns : stride] for i, j in places]
    return jnp.dot(jnp.concatenate(windows, axis=-1), kernel.reshape(-1, features), precision=precision)
