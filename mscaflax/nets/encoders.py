"""The two pyramids: label features of either scene, image features of the exemplar."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from mscaflax.nets.convolution import EdgeConv, Kernel, split_kernel
from mscaflax.nets.folding import fold, fold_matrix, fold_vector
from mscaflax.nets.layers import average_pool
from mscaflax.nets.per_image import convolve_pointwise


@flax.struct.dataclass
class TapStatistics:
    """Fixed per-channel mean and deviation of each VGG tap, measured once over training patches.

    Attributes:
      mean: a tuple of [c] float32, one per tap.
      deviation: the same shapes, positive.
    """

    mean: tuple
    deviation: tuple


class LabelEncoder(nn.Module):
    """Label map → label pyramid, one convolution per scale; shared by target and exemplar.

    Attributes:
      num_classes: C; the map holds 0..C, C = unlabelled.
      channels: M_i per scale, finest first.
      dtype: compute dtype.
    """

    num_classes: int
    channels: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, label, valid, folded=False):
        """label [b, h, w] int, `valid` a tuple of L masks or Nones → L arrays [b, h/2^i, w/2^i, M_i].

        With `folded`, and without masks, the first array is folded.
        """
        # Unit variance from the start: a class must weigh as much in the modulations as a style does.
        shape, init = (self.num_classes + 1, self.channels[0]), nn.initializers.normal(1.0)
        embed = Kernel(shape, use_bias=False, kernel_init=init, name="embed")()[0].astype(self.dtype)
        # one_hot defaults to float32 and would promote every later layer.
        if folded:
            x = convolve_pointwise(folded_one_hot(label, shape[0], self.dtype), fold_matrix(embed))
        else:
            x = jax.nn.one_hot(label, shape[0], dtype=self.dtype) @ embed
        pyramid = []
        for scale, channels in enumerate(self.channels):
            stride = 1 if scale == 0 else 2
            x = EdgeConv(
                channels,
                stride,
                kernel_init=nn.initializers.he_normal(),
                dtype=self.dtype,
                name=f"scale{scale}",
            )(x, valid=valid[max(scale - 1, 0)], folded=folded and scale < 2)
            x = nn.leaky_relu(x, 0.2)
            pyramid.append(x)
        return tuple(pyramid)


def folded_one_hot(label, num_classes, dtype):
    """fold(jax.nn.one_hot(label, num_classes)) of [b, h, w] int: [b, h, w/2, 2·num_classes]."""
    channels = jnp.arange(2 * num_classes).reshape(1, 1, 1, -1)
    left, right = label[..., ::2, None], label[..., 1::2, None]
    return ((channels == left) | (channels == right + num_classes)).astype(dtype)


def class_shares(label, num_classes, factor, dtype):
    """average_pool(jax.nn.one_hot(label, num_classes), factor) of [b, h, w] int, without the large map.

    `factor` divides h and w.
    """
    classes = jnp.arange(num_classes).reshape(1, 1, 1, -1)
    cells = [label[:, y::factor, x::factor, None] == classes for y in range(factor) for x in range(factor)]
    return (sum(cell.astype(jnp.float32) for cell in cells) / factor**2).astype(dtype)


class ImageEncoder(nn.Module):
    """VGG taps and colours of the exemplar → image pyramid, one 1×1 convolution per scale.

    Attributes:
      channels: N_i per scale, finest first.
      dtype: compute dtype.
    """

    channels: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image, taps, statistics, folded=False):
        """image [b, h, w, 3] in [-1, 1], `taps` L arrays → L arrays [b, h/2^i, w/2^i, N_i].

        With `folded`, the first of `taps` and of the arrays is folded.
        """
        pyramid = []
        colour = image
        for scale, channels in enumerate(self.channels):
            if scale:
                colour = average_pool(colour)
            tap = taps[scale].astype(self.dtype)
            # Standardized by fixed numbers: statistics of the single image would remove its style.
            here = folded and scale == 0
            mean, deviation = (
                (fold_vector(x[scale]) if here else x[scale]).reshape(1, 1, 1, -1).astype(self.dtype)
                for x in (statistics.mean, statistics.deviation)
            )
            maps = (tap - mean) / deviation, (fold(colour) if here else colour).astype(self.dtype)
            shape = (statistics.mean[scale].shape[-1] + colour.shape[-1], channels)
            kernel, bias = (x.astype(self.dtype) for x in Kernel(shape, name=f"scale{scale}")())
            kernels = split_kernel(kernel, maps, here)
            if here:
                kernels, bias = map(fold_matrix, kernels), fold_vector(bias)
            # The sum of their products: the two side by side would be a copy of the larger one.
            of_tap, of_colour = map(convolve_pointwise if folded else jnp.matmul, maps, kernels)
            pyramid.append(of_tap + of_colour + bias.reshape(1, 1, 1, -1))
        return tuple(pyramid)
