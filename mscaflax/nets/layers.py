"""Layers that the networks share: padding, normalizations, resampling, noise.

Axes: b batch, h w positions, c channels. `valid` is None, or [b, h, w, 1], nonzero on content and zero on
padding; content is a rectangle at the top left. With it, every result on the content equals that of the
unpadded input.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

EPSILON = 1e-5
MAX_SIDE = 2**14  # of a map with noise
MAX_PRODUCT_SIDE = 256  # of a map that is upsampled by matrix products


def pad_by_edge(x, valid=None):
    """Surrounds the content by one position that repeats its border: [b, h, w, c] → [b, h+2, w+2, c]."""
    if valid is None:
        return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = x.shape[1:3]

    def one(x, valid):
        rows = jnp.clip(jnp.arange(-1, height + 1), 0, valid.any(axis=(1, 2)).sum() - 1)
        columns = jnp.clip(jnp.arange(-1, width + 1), 0, valid.any(axis=(0, 2)).sum() - 1)
        return x[rows][:, columns]

    return jax.vmap(one)(x, valid)


class Kernel(nn.Module):
    """The parameters of a convolution or dense layer, under the names that flax gives them.

    Attributes:
      shape: of the kernel: positions, channels in, channels out.
      use_bias, kernel_init: as nn.Conv's.
    """

    shape: tuple[int, ...]
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self):
        """(kernel, bias or None), float32."""
        kernel = self.param("kernel", self.kernel_init, self.shape, jnp.float32)
        if not self.use_bias:
            return kernel, None
        return kernel, self.param("bias", nn.initializers.zeros_init(), self.shape[-1:], jnp.float32)


def split_kernel(kernel, maps):
    """The parts of a kernel [..., c, n] that belong to each of several maps with c channels together."""
    ends = np.cumsum([x.shape[-1] for x in maps])[:-1]
    return jnp.split(kernel, ends, axis=-2)


class EdgeConv(nn.Module):
    """3×3 convolution whose border is the repeated edge of the content.

    Zeros would draw the border into every constant region, and normalization would amplify that to a grid.

    Attributes:
      features: channels of the result.
      stride: 1 or 2; with 2, h and w are even.
      use_bias, kernel_init, dtype: as nn.Conv's.
    """

    features: int
    stride: int = 1
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, *maps, valid=None):
        """Maps [b, h, w, c], whose channels count as one after the other → [b, h/stride, w/stride, features].

        `valid` as of this file.
        """
        channels = sum(x.shape[-1] for x in maps)
        kernel, bias = Kernel((3, 3, channels, self.features), self.use_bias, self.kernel_init, name="conv")()
        y = 0
        # The sum of their convolutions, not that of one long map, which would be a copy.
        for x, part in zip(maps, split_kernel(kernel.astype(self.dtype), maps), strict=True):
            y = y + edge_conv(x.astype(self.dtype), part, self.stride, valid)
        return y if bias is None else y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


def edge_conv(x, kernel, stride=1, valid=None):
    """3×3 convolution of [b, h, w, c] over a border that repeats the edge: [b, h/stride, w/stride, n]."""
    if valid is None and 1 not in x.shape[1:3]:
        return edge_convolution(x, kernel, stride)
    return convolve_padded(pad_by_edge(x, valid), kernel, stride)


def convolve_padded(x, kernel, stride):
    """3×3 convolution of a map that has its border already: [b, h+2, w+2, c] → [b, h/stride, w/stride, n]."""
    # Zeros around the border, then a crop: the CPU runs convolutions without padding much slower.
    before, after = (1, 1) if stride == 1 else (2, 0)
    x = _convolve(x, kernel, stride, (before, after))
    return x[:, 1:-1, 1:-1] if stride == 1 else x[:, 1:, 1:]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def edge_convolution(x, kernel, stride=1):
    """3×3 convolution whose border is the repeated edge: but for rounding, `convolve_padded(pad_by_edge(x))`.

    A map with a border is a copy, which costs more than half of the convolution's own traffic on a TPU:
    here the convolution pads by zeros, and its outermost rows and columns, which that makes wrong, are
    computed again from strips with a border. What follows takes them in the pass that reads the map.

    Args:
      x: [b, h, w, c], h and w at least 2.
      kernel: [3, 3, c, n].
      stride: 1 or 2; with 2, h and w are even.

    Returns:
      [b, h/stride, w/stride, n].
    """
    lines = {}
    for border in _borders(stride):
        strip = convolve_padded(pad_by_edge(_strip(x, border, 2)), kernel, stride)
        lines[border] = _strip(strip, border, 1)
    return _with_border(_convolve(x, kernel, stride), lines)


def _edge_convolution_forward(x, kernel, stride):
    return edge_convolution(x, kernel, stride), (x, kernel)


def _edge_convolution_backward(stride, saved, y_gradient):
    # By hand, so that here, too, the border is added in one pass: JAX would add padded maps.
    x, kernel = saved
    _, pull = jax.vjp(functools.partial(_convolve, stride=stride), x, kernel)
    x_gradient, kernel_gradient = pull(y_gradient)
    lines = {border: _gradient_line(y_gradient, kernel, stride, border) for border in _borders(stride)}
    _, pull = jax.vjp(functools.partial(_edge_terms, _edges(x, stride), stride), kernel)
    (of_edges,) = pull(_edges(y_gradient, stride))
    return _with_border(x_gradient, lines), kernel_gradient + of_edges


edge_convolution.defvjp(_edge_convolution_forward, _edge_convolution_backward)


def _convolve(x, kernel, stride, padding=None):
    """Convolution over the axes between the first and the last, each with `padding` zeros before and after.

    None: as many as leave 1/stride of the positions; with stride 2 the last window ends inside.
    """
    axes = x.ndim - 2
    padding = padding or ((1, 1) if stride == 1 else (1, 0))
    numbers = ("NHWC", "HWIO", "NHWC") if axes == 2 else ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride,) * axes, (padding,) * axes, dimension_numbers=numbers
    )


def _borders(stride):
    """The borders that the repeated edge touches, as (axis, whether it is the axis's end)."""
    return [(axis, end) for axis in (1, 2) for end in (False, True)[: 3 - stride]]


def _strip(x, border, width):
    """The `width` lines of a map next to a border."""
    axis, end = border
    first = x.shape[axis] - width if end else 0
    return jax.lax.slice_in_dim(x, first, first + width, axis=axis)


def _with_border(x, lines):
    """A map with other outermost lines, {border: one line}."""
    for (axis, end), line in lines.items():
        here = jnp.arange(x.shape[axis]) == (x.shape[axis] - 1 if end else 0)
        x = jnp.where(here.reshape([-1 if i == axis else 1 for i in range(4)]), line, x)
    return x


def _gradient_line(y_gradient, kernel, stride, border):
    """The line of x's gradient at a border, from those lines of y's that depend on it."""
    axis, end = border
    strip = _strip(y_gradient, border, 3 - stride)
    if stride == 1:
        # The map goes on behind the strip: what its other border says of y is not there.
        padding = [(0, 0)] * 4
        padding[axis] = (1, 0) if end else (0, 1)
        strip = jnp.pad(strip, padding)
    shape = list(strip.shape)
    shape[1:] = [stride * shape[1], stride * shape[2], kernel.shape[2]]
    (gradient,) = jax.linear_transpose(
        lambda x: convolve_padded(pad_by_edge(x), kernel, stride), jax.ShapeDtypeStruct(shape, strip.dtype)
    )(strip)
    return _strip(gradient, border, 1)


def _edges(x, stride):
    """The outermost lines of a map: rows [b, w, c] and columns [b, h, c]."""
    return {border: _strip(x, border, 1).squeeze(border[0]) for border in _borders(stride)}


def _edge_terms(edges, stride, kernel):
    """What repeated edges add to the same lines of a convolution with zeros; the corners are in the rows."""
    terms = {}
    for (axis, end), line in edges.items():
        if axis == 1:
            # With stride 2 the last window ends inside.
            corners = [line[:, :1], line, *([line[:, -1:]] if stride == 1 else [])]
            line = jnp.concatenate(corners, axis=1)
            terms[axis, end] = _convolve(line, kernel[2 * end], stride, (0, 0))
        else:
            terms[axis, end] = _convolve(line, kernel[:, 2 * end], stride)
    return terms


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
