"""Layers that the networks share: normalizations, masking of padding, resampling, noise.

Axes: b batch, h w positions, c channels. `valid` is None, or [b, h, w, 1] with 1 on content and 0 on
padding; with it, every result on the content equals that of the unpadded input, because zeros beyond the
border are what an unpadded 'SAME' convolution sees too.
"""

import jax
import jax.numpy as jnp
import numpy as np

EPSILON = 1e-5


def zero_padding(x, valid):
    """Sets padding to zero; x is [b, h, w, c], `valid` as in the module's text."""
    return x if valid is None else x * valid.astype(x.dtype)


def coverage_pyramid(valid, num_scales):
    """Share of content in each position of each scale.

    Args:
      valid: None or [b, h, w] bool, True on content; h and w divisible by 2**(num_scales-1).
      num_scales: L.

    Returns:
      A tuple of L arrays [b, h/2^i, w/2^i, 1] float32 in [0, 1], or of L Nones.
    """
    if valid is None:
        return (None,) * num_scales
    coverage = valid.astype(jnp.float32)[..., None]
    pyramid = [coverage]
    for _ in range(num_scales - 1):
        pyramid.append(average_pool(pyramid[-1]))
    return tuple(pyramid)


def average_pool(x, factor=2):
    """Mean over factor×factor cells: [b, h, w, c] → [b, h/factor, w/factor, c], in x's dtype."""
    b, h, w, c = x.shape
    cells = x.reshape(b, h // factor, factor, w // factor, factor, c)
    return cells.mean(axis=(2, 4))


def upsample_nearest(x):
    """[b, h, w, c] → [b, 2h, 2w, c], each position repeated."""
    b, h, w, c = x.shape
    cells = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return cells.reshape(b, 2 * h, 2 * w, c)


def layer_norm(x):
    """Zero mean and unit deviation over channels, float32 statistics, no parameters; keeps x's dtype."""
    y = x.astype(jnp.float32)
    y = y - y.mean(axis=-1, keepdims=True)
    return (y * jax.lax.rsqrt((y * y).mean(axis=-1, keepdims=True) + EPSILON)).astype(x.dtype)


def instance_norm(x, valid=None):
    """Zero mean and unit deviation per image and channel over the content, float32 statistics."""
    y = x.astype(jnp.float32)
    if valid is None:
        y = y - y.mean(axis=(1, 2), keepdims=True)
        variance = (y * y).mean(axis=(1, 2), keepdims=True)
    else:
        weight = valid.astype(jnp.float32)
        count = jnp.maximum(weight.sum(axis=(1, 2), keepdims=True), 1.0)
        y = y - (y * weight).sum(axis=(1, 2), keepdims=True) / count
        variance = (y * y * weight).sum(axis=(1, 2), keepdims=True) / count
    return (y * jax.lax.rsqrt(variance + EPSILON)).astype(x.dtype)


def normalize(x, kind, valid=None):
    """`instance`: per image and channel over positions; `position`: per position over channels."""
    if kind == "instance":
        return instance_norm(x, valid)
    if kind == "position":
        return layer_norm(x)
    raise ValueError(f"normalization is {kind!r}, allowed are 'instance' and 'position'")


def position_noise(keys, sizes):
    """Standard normal noise that depends on the key, the scale and the position alone, not on the map's size.

    A map and its crop from the top left corner therefore agree, so that padding changes nothing.

    Args:
      keys: [b] typed random keys, one per image.
      sizes: (h, w) of each scale, at most 16,384 each and 16 scales.

    Returns:
      A tuple of [b, h, w, 2] float32, one per scale.
    """
    positions = jnp.concatenate(
        [
            ((scale << 28) | (np.arange(h)[:, None] << 14) | np.arange(w)).astype(np.uint32).reshape(-1)
            for scale, (h, w) in enumerate(sizes)
        ]
    )

    def one(key):
        return jax.vmap(lambda position: jax.random.normal(jax.random.fold_in(key, position), (2,)))(
            positions
        )

    # One call for all scales: the generator is unrolled code, long to compile.
    flat = jax.vmap(one)(keys)
    maps, begin = [], 0
    for h, w in sizes:
        maps.append(flat[:, begin : begin + h * w].reshape(-1, h, w, 2))
        begin += h * w
    return tuple(maps)
