"""Layers that the networks share: normalizations, resampling, noise; `convolution.py` has the convolutions.

Axes: b batch, h w positions, c channels. `valid` is None, or [b, h, w, 1], nonzero on content and zero on
padding; content is a rectangle at the top left. With it, every result on the content equals that of the
unpadded input.
"""

import functools

import jax
import jax.numpy as jnp

from mscaflax.nets.convolution import pad_by_edge
from mscaflax.nets.folding import fold, fold_vector, unfold

EPSILON = 1e-5
MAX_SIDE = 2**14  # of a map with noise
MAX_PRODUCT_SIDE = 256  # of a map that is upsampled by matrix products


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
    if factor == 2:
        if any(isinstance(side, int) and side % 2 for side in x.shape[1:3]):
            raise ValueError(f"a map of {x.shape[1]}×{x.shape[2]} has no cells of 2×2")
        # Strided sums: of cells along axes of their own, a TPU fills nine tenths of each tile with padding.
        rows = x[:, ::2].astype(jnp.float32) + x[:, 1::2].astype(jnp.float32)
        return ((rows[:, :, ::2] + rows[:, :, 1::2]) / 4).astype(x.dtype)
    b, h, w, c = x.shape
    cells = x.reshape(b, h // factor, factor, w // factor, factor, c)
    return cells.mean(axis=(2, 4))


def upsample(x, valid=None):
    """Bilinear ×2 with aligned pixel centres, the border repeated: [b, h, w, c] → [b, 2h, 2w, c]."""
    # Of an exported program, sides may be symbols, for which there is no matrix.
    small = all(isinstance(side, int) and side <= MAX_PRODUCT_SIDE for side in x.shape[1:3])
    if valid is None and small:
        rows = jnp.einsum("ph,bhwc->bpwc", _interpolation(x.shape[1], x.dtype), x)
        return jnp.einsum("qw,bpwc->bpqc", _interpolation(x.shape[2], x.dtype), rows)
    padded = pad_by_edge(x, valid)
    rows = _interpolate(padded[:, :-2], padded[:, 1:-1], padded[:, 2:], axis=2)
    return _interpolate(rows[:, :, :-2], rows[:, :, 1:-1], rows[:, :, 2:], axis=3)


def upsample_folded(x):
    """`upsample` of a map that is not folded: [b, h, w, c] → [b, 2h, w, 2c], folded."""
    # The columns first, as long as the map is small: 0.25, 0.75 of the one before and this one, then of this
    # one and the next.
    taps = jnp.array([[0.25, 0.0], [0.75, 0.75], [0.0, 0.25]], x.dtype)
    channels = x.shape[-1]
    kernel = jnp.einsum("tp,cn->tcpn", taps, jnp.eye(channels, dtype=x.dtype))
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)), mode="edge")
    columns = jax.lax.conv_general_dilated(
        padded, kernel.reshape(1, 3, channels, 2 * channels), (1, 1), "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    return jnp.einsum("ph,bhwc->bpwc", _interpolation(x.shape[1], x.dtype), columns)


def _interpolation(size, dtype):
    """The matrix [2·size, size] of the upsampling along one axis.

    Products with it move little more on a TPU than the map and its result, where shifted and interleaved maps
    are several copies. Their arithmetic grows with the side, which is small in training.
    """
    # Computed, not written out, as the noise's positions are.
    row, column = jnp.arange(2 * size)[:, None], jnp.arange(size)[None, :]
    here = row // 2
    beside = jnp.clip(here + 2 * (row % 2) - 1, 0, size - 1)
    return (0.75 * (column == here) + 0.25 * (column == beside)).astype(dtype)


def _interpolate(before, here, after, axis):
    """The two halves of each position, interleaved along the axis in front of `axis`."""
    halves = jnp.stack([0.75 * here + 0.25 * before, 0.75 * here + 0.25 * after], axis=axis)
    shape = list(here.shape)
    shape[axis - 1] *= 2
    return halves.reshape(shape)


def layer_norm(x):
    """Zero mean and unit deviation over channels, float32 statistics, no parameters; keeps x's dtype."""
    y = x.astype(jnp.float32)
    y = y - y.mean(axis=-1, keepdims=True)
    return (y * jax.lax.rsqrt((y * y).mean(axis=-1, keepdims=True) + EPSILON)).astype(x.dtype)


def normalized_product(x, kernel):
    """`layer_norm(x) @ kernel` without a normalized map: [b, h, w, c], [c, n] → [b, h, w, n], in x's dtype.

    A kernel whose columns sum to 0 takes off x's mean, but for what its rounding to x's dtype leaves, which
    goes off the product; the deviation divides that. So neither pass moves a normalized map or its gradient.
    """
    y = x.astype(jnp.float32)
    mean = y.mean(axis=-1, keepdims=True)
    y = y - mean
    scale = jax.lax.rsqrt((y * y).mean(axis=-1, keepdims=True) + EPSILON)
    kernel = (kernel - kernel.mean(axis=0, keepdims=True)).astype(x.dtype)
    left = mean * kernel.astype(jnp.float32).sum(axis=0).reshape(1, 1, 1, -1)
    return (((x @ kernel).astype(jnp.float32) - left) * scale).astype(x.dtype)


def instance_norm(x, valid=None, folded=False):
    """Zero mean and unit deviation per image and channel over the content, float32 statistics.

    `folded` maps have no `valid`; see `mscaflax.nets.folding`.
    """
    if valid is None:
        return _standardize(x, folded)
    if folded:
        raise ValueError("a folded map has no padding")
    y = x.astype(jnp.float32)
    weight = valid.astype(jnp.float32)
    count = jnp.maximum(weight.sum(axis=(1, 2), keepdims=True), 1.0)
    y = y - (y * weight).sum(axis=(1, 2), keepdims=True) / count
    variance = (y * y * weight).sum(axis=(1, 2), keepdims=True) / count
    return (y * jax.lax.rsqrt(variance + EPSILON)).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _standardize(x, folded):
    """Instance normalization of a map without padding, [b, h, w, c] or folded."""
    return _standardize_forward(x, folded)[0]


def _standardize_forward(x, folded):
    y = x.astype(jnp.float32)
    mean = _mean_over_positions(y, folded)
    y = y - mean
    scale = jax.lax.rsqrt(_mean_over_positions(y * y, folded) + EPSILON)
    return (y * scale).astype(x.dtype), (x, mean, scale)


def _standardize_backward(folded, saved, gradient):
    # By hand: the second of JAX's sums waits for the first. These do not, so that one pass gives both.
    x, mean, scale = saved
    gradient, y = gradient.astype(jnp.float32), (x.astype(jnp.float32) - mean) * scale
    of_mean, of_scale = _mean_over_positions(gradient, folded), _mean_over_positions(gradient * y, folded)
    return (((gradient - of_mean - y * of_scale) * scale).astype(x.dtype),)


_standardize.defvjp(_standardize_forward, _standardize_backward)


def _mean_over_positions(x, folded):
    """For each image and channel: [b, 1, 1, c]; of a folded map [b, h, w/2, 2c] folded, [b, 1, 1, 2c]."""
    mean = x.mean(axis=(1, 2), keepdims=True)
    return fold_vector(sum(jnp.split(mean, 2, axis=-1)) / 2) if folded else mean


def normalize(x, kind, valid=None, folded=False):
    """`instance`: per image and channel over positions; `position`: per position over channels."""
    if kind == "instance":
        return instance_norm(x, valid, folded)
    if kind == "position":
        return fold(layer_norm(unfold(x))) if folded else layer_norm(x)
    raise ValueError(f"normalization is {kind!r}, allowed are 'instance' and 'position'")


def position_noise(keys, sizes):
    """Standard normal noise that depends on the key, the scale and the position alone, not on the map's size.

    A map and its crop from the top left corner therefore agree, so that padding changes nothing.

    Args:
      keys: [b] typed random keys, one per image.
      sizes: (h, w) of each scale, at most MAX_SIDE each and 16 scales.

    Returns:
      A tuple of [b, h, w, 2] float32, one per scale.

    Raises:
      ValueError: more scales or larger sides.
    """
    if any(side > MAX_SIDE for size in sizes for side in size) or len(sizes) > 16:
        raise ValueError(f"noise is defined for 16 scales with sides up to {MAX_SIDE}, got {sizes}")
    # Computed, not written out: as a constant it would weigh as much as a photo in every program.
    positions = jnp.concatenate(
        [
            (
                jnp.uint32(scale << 28)
                | (jax.lax.broadcasted_iota(jnp.uint32, (h, w), 0) << 14)
                | jax.lax.broadcasted_iota(jnp.uint32, (h, w), 1)
            ).reshape(-1)
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
