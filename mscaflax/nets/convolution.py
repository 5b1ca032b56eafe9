"""Convolutions whose border is the repeated edge, of one map or of several that count as one.

Axes: b batch, h w positions, c and n channels in and out. `valid` as of `mscaflax.nets.layers`.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mscaflax.nets.small_maps import convolve_by_product, is_small


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

        `valid` as of `mscaflax.nets.layers`.
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
    x, kernel = saved
    if is_small(x):
        # Of the gradient alone: a model exported for maps of any size has to give what this one gives, and
        # instance normalization of few positions amplifies how a sum is rounded.
        product = functools.partial(convolve_by_product, stride=stride)
        return jax.vjp(lambda x, kernel: product(pad_by_edge(x), kernel), x, kernel)[1](y_gradient)
    # By hand, so that here, too, the border is added in one pass: JAX would add padded maps.
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
