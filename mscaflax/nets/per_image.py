"""Products of maps with kernels, as convolutions, for a TPU: also of each image with a kernel of its own.

A TPU's convolutions want maps in another order in memory than products of batches of matrices: one of each in
turn, and the maps are copied to and fro. As convolutions all of them have one order. They give what the
products give; other devices gain nothing, or lose.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P


def convolve_pointwise(x, kernel):
    """x @ kernel, as a convolution: [b, h, w, c], [c, n] → [b, h, w, n]."""
    return jax.lax.conv_general_dilated(
        x, kernel[None, None], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def convolve_each(x, kernels):
    """jnp.einsum("bhwj,bjc->bhwc", x, kernels) as one convolution: each image has a kernel of its own.

    The kernels of all images lie along an axis which the convolution sums over, and a mask leaves each image
    its own: b times the arithmetic, but the masked map is never written, a TPU masks x as it reads it. With a
    mesh (`jax.sharding.use_abstract_mesh`), b is the number of images on a device. A number that is not
    finite in one kernel reaches all of them.

    Args:
      x: [b, h, w, j], split over all devices of the mesh along b.
      kernels: [b, j, c], too.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return _convolve_each(x, kernels)
    split = P(mesh.axis_names)
    return jax.shard_map(_convolve_each, mesh=mesh, in_specs=split, out_specs=split)(x, kernels)


def _convolve_each(x, kernels):
    b = x.shape[0]
    own = jnp.eye(b, dtype=bool).reshape(b, 1, 1, b, 1)
    masked = jnp.where(own, x[:, :, :, None, :], 0)
    return jax.lax.conv_general_dilated(
        masked, kernels[None, None], (1, 1, 1), "VALID", dimension_numbers=("NHWDC", "HWDIO", "NHWDC")
    )[:, :, :, 0]
