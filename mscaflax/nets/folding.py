"""Folded maps: two neighbouring columns side by side in the channels, [b, h, w, c] as [b, h, w/2, 2c].

A TPU keeps the last axis in tiles of 128 lanes, and its convolutions pad maps of 64 channels to that: at full
resolution half of all bytes moved would be padding. Folding changes how a map lies in memory and how a result
is rounded, and nothing else: parameters are those of unfolded maps, and their kernels are folded on the way.
Only training folds (`config.model.fold_columns`), where all of a map is content and nothing is padding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def fold(x):
    """[..., w, c] → [..., w/2, 2c]: the channels of the left column come first; w is even."""
    *front, columns, channels = x.shape
    return x.reshape(*front, columns // 2, 2 * channels)


def unfold(x):
    """[..., w/2, 2c] → [..., w, c], the inverse of `fold`."""
    *front, columns, channels = x.shape
    return x.reshape(*front, 2 * columns, channels // 2)


def fold_vector(x):
    """What each channel has, [..., c], for both columns: [..., 2c]."""
    return jnp.concatenate([x, x], axis=-1)


def fold_matrix(kernel):
    """A dense layer's kernel [..., c, n] for folded maps, each column by itself: [..., 2c, 2n]."""
    *front, inputs, outputs = kernel.shape
    return jnp.einsum("pq,...cn->...pcqn", jnp.eye(2, dtype=kernel.dtype), kernel).reshape(
        *front, 2 * inputs, 2 * outputs
    )


def _taps(width, stride):
    """Which column of which folded one a kernel's tap reads: (taps before, [places, 2, outputs, width]).

    Of a kernel of `width` taps, the first at (width - 1) // 2 columns before the output's own, and for each
    of the `outputs` columns that a folded result has: 2 with stride 1, and 1 with stride 2.
    """
    outputs = 2 // stride
    columns = np.arange(outputs)[:, None] + np.arange(width)[None] - (width - 1) // 2
    places = columns // 2
    before = -places.min()
    taps = np.zeros((places.max() + before + 1, 2, outputs, width), np.float32)
    for (output, tap), column in np.ndenumerate(columns):
        taps[column // 2 + before, column % 2, output, tap] = 1
    return before, taps


def fold_kernel(kernel, stride=1):
    """A convolution's kernel for a folded map.

    Args:
      kernel: [kh, kw, c, n], whose window begins (kw - 1) // 2 columns before the output's own.
      stride: 1, the result is folded; 2, it is not.

    Returns:
      ([kh, places, 2c, 2n or n], (how many folded columns of zeros come before the map, how many after)).
    """
    before, taps = _taps(kernel.shape[1], stride)
    folded = jnp.einsum("dqpt,htcn->hdqcpn", jnp.asarray(taps, kernel.dtype), kernel)
    height, places, _, inputs, outputs, features = folded.shape
    return folded.reshape(height, places, 2 * inputs, outputs * features), (before, places - 1 - before)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def round_to(x, dtype):
    """x.astype(dtype), whose gradient is rounded to `dtype`, too.

    XLA takes a rounding out that comes right before a widening: gradients of images would be float32.
    """
    return x.astype(dtype)


def _round_to_forward(x, dtype):
    return x.astype(dtype), jnp.zeros((), x.dtype)


def _round_to_backward(dtype, like, gradient):
    return (jax.lax.optimization_barrier(gradient).astype(like.dtype),)


round_to.defvjp(_round_to_forward, _round_to_backward)
