"""Convolutions whose border is the repeated edge, of one map or of several that count as one.

Axes: b batch, h w positions, c and n channels in and out. `valid` as of `mscaflax.nets.layers`; `folded` maps
as of `mscaflax.nets.folding`.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mscaflax.nets.folding import fold, fold_kernel, fold_vector, unfold
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


def split_kernel(kernel, maps, folded=False):
    """The parts of a kernel [..., c, n] that belong to each of several maps with c channels together."""
    ends = np.cumsum([x.shape[-1] // (2 if folded else 1) for x in maps])[:-1]
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
    def __call__(self, *maps, valid=None, folded=False):
        """Maps [b, h, w, c], whose channels count as one after the other → [b, h/stride, w/stride, features].

        With `folded`, and `valid` None, the maps are folded, and with stride 1 so is the result.
        """
        channels = sum(x.shape[-1] for x in maps) // (2 if folded else 1)
        kernel, bias = Kernel((3, 3, channels, self.features), self.use_bias, self.kernel_init, name="conv")()
        y = 0
        # The sum of their convolutions, not that of one long map, which would be a copy.
        for x, part in zip(maps, split_kernel(kernel.astype(self.dtype), maps, folded), strict=True):
            y = y + edge_conv(x.astype(self.dtype), part, self.stride, valid, folded)
        if bias is None:
            return y
        bias = bias.astype(self.dtype)
        return y + (fold_vector(bias) if folded and self.stride == 1 else bias).reshape(1, 1, 1, -1)


def edge_conv(x, kernel, stride=1, valid=None, folded=False):
    """3×3 convolution of [b, h, w, c] over a border that repeats the edge: [b, h/stride, w/stride, n]."""
    if valid is None and 1 not in x.shape[1:3]:
        return edge_convolution(x, kernel, stride, folded)
    if folded:
        raise ValueError(f"a folded map has no padding and at least two folded columns, got {x.shape}")
    return convolve_padded(pad_by_edge(x, valid), kernel, stride)


def convolve_padded(x, kernel, stride):
    """3×3 convolution of a map that has its border already: [b, h+2, w+2, c] → [b, h/stride, w/stride, n]."""
    # Zeros around the border, then a crop: the CPU runs convolutions without padding much slower.
    before, after = (1, 1) if stride == 1 else (2, 0)
    x = _convolve(x, kernel, stride, (before, after))
    return x[:, 1:-1, 1:-1] if stride == 1 else x[:, 1:, 1:]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def edge_convolution(x, kernel, stride=1, folded=False):
    """3×3 convolution whose border is the repeated edge: but for rounding, `convolve_padded(pad_by_edge(x))`.

    A map with a border is a copy, which costs more than half of the convolution's own traffic on a TPU:
    here the convolution pads by zeros, and its outermost rows and columns, which that makes wrong, are
    computed again from strips with a border. What follows takes them in the pass that reads the map.

    Args:
      x: [b, h, w, c], h and w at least 2; or the same folded, [b, h, w/2, 2c], w at least 4.
      kernel: [3, 3, c, n].
      stride: 1 or 2; with 2, h and w are even.
      folded: whether x is, and with stride 1 the result.

    Returns:
      [b, h/stride, w/stride, n], with stride 1 folded as x is.
    """
    lines = {}
    for border in _borders(stride):
        # A folded column's second half needs the column behind it.
        width = 4 if folded and stride == 1 and border[0] == 2 else 2
        strip = _outermost(x, border, width, folded)
        strip = convolve_padded(pad_by_edge(strip), kernel, stride)
        lines[border] = _line(strip, border, folded and stride == 1)
    return _with_border(_convolve_map(x, kernel, stride, folded), lines)


def _edge_convolution_forward(x, kernel, stride, folded):
    return edge_convolution(x, kernel, stride, folded), (x, kernel)


def _edge_convolution_backward(stride, folded, saved, y_gradient):
    x, kernel = saved
    if is_small(x) and not folded:
        # Of the gradient alone: a model exported for maps of any size has to give what this one gives, and
        # instance normalization of few positions amplifies how a sum is rounded.
        product = functools.partial(convolve_by_product, stride=stride)
        return jax.vjp(lambda x, kernel: product(pad_by_edge(x), kernel), x, kernel)[1](y_gradient)
    # By hand, so that here, too, the border is added in one pass: JAX would add padded maps.
    _, pull = jax.vjp(functools.partial(_convolve_map, stride=stride, folded=folded), x, kernel)
    x_gradient, kernel_gradient = pull(y_gradient)
    lines = {
        border: _gradient_line(y_gradient, kernel, stride, border, folded) for border in _borders(stride)
    }
    _, pull = jax.vjp(functools.partial(_edge_terms, _edges(x, stride, folded), stride), kernel)
    (of_edges,) = pull(_edges(y_gradient, stride, folded and stride == 1))
    return _with_border(x_gradient, lines), kernel_gradient + of_edges


edge_convolution.defvjp(_edge_convolution_forward, _edge_convolution_backward)


def _convolve_map(x, kernel, stride, folded):
    """Convolution of a whole map, folded or not, with zeros around it."""
    if not folded:
        return _convolve(x, kernel, stride)
    kernel, columns = fold_kernel(kernel, stride)
    rows = (1, 1) if stride == 1 else (1, 0)
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, 1), (rows, columns), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


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


def _outermost(x, border, width, folded):
    """The `width` lines next to a border, of a map that may be folded: not folded."""
    if folded:
        x = unfold(_strip(x, border, width if border[0] == 1 else -(-width // 2)))
    return _strip(x, border, width)


def _line(strip, border, folded):
    """What a map has at a border in place of one line, folded or not, from an unfolded strip."""
    if not folded:
        return _strip(strip, border, 1)
    return fold(_strip(strip, border, border[0]))  # one row, or two columns


def _with_border(x, lines):
    """A map with other outermost lines, {border: one line}."""
    for (axis, end), line in lines.items():
        here = jnp.arange(x.shape[axis]) == (x.shape[axis] - 1 if end else 0)
        x = jnp.where(here.reshape([-1 if i == axis else 1 for i in range(4)]), line, x)
    return x


def _gradient_line(y_gradient, kernel, stride, border, folded):
    """The line of x's gradient at a border, from those lines of y's that depend on it."""
    axis, end = border
    # Of a folded column the second half is wanted, too, which depends on one line more.
    halves = folded and axis == 2
    width = (4 if halves else 2) if stride == 1 else (2 if halves else 1)
    strip = _outermost(y_gradient, border, width, folded and stride == 1)
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
    return _line(gradient, border, folded)


def _edges(x, stride, folded):
    """The outermost lines of a map, folded or not: rows [b, w, c] and columns [b, h, c]."""
    return {border: _outermost(x, border, 1, folded).squeeze(border[0]) for border in _borders(stride)}


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
