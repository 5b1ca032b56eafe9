"""The two pyramids: label features of either scene, image features of the exemplar."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from mscaflax.nets.convolution import EdgeConv, Kernel, split_kernel
from mscaflax.nets.layers import average_pool


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
    def __call__(self, label, valid):
        """label [b, h, w] int, `valid` a tuple of L masks or Nones → L arrays [b, h/2^i, w/2^i, M_i]."""
        # one_hot defaults to float32 and would promote every later layer.
        x = jax.nn.one_hot(label, self.num_classes + 1, dtype=self.dtype)
        # Unit variance from the start: a class must weigh as much in the modulations as a style does.
        embed = nn.initializers.normal(1.0)
        x = nn.Dense(self.channels[0], use_bias=False, kernel_init=embed, dtype=self.dtype, name="embed")(x)
        pyramid = []
        for scale, channels in enumerate(self.channels):
            stride = 1 if scale == 0 else 2
            x = EdgeConv(
                channels,
                stride,
                kernel_init=nn.initializers.he_normal(),
                dtype=self.dtype,
                name=f"scale{scale}",
            )(x, valid=valid[max(scale - 1, 0)])
            x = nn.leaky_relu(x, 0.2)
            pyramid.append(x)
        return tuple(pyramid)


class ImageEncoder(nn.Module):
    """VGG taps and colours of the exemplar → image pyramid, one 1×1 convolution per scale.

    Attributes:
      channels: N_i per scale, finest first.
      dtype: compute dtype.
    """

    channels: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image, taps, statistics):
        """image [b, h, w, 3] in [-1, 1], `taps` L arrays → L arrays [b, h/2^i, w/2^i, N_i]."""
        pyramid = []
        colour = image
        for scale, channels in enumerate(self.channels):
            if scale:
                colour = average_pool(colour)
            tap = taps[scale].astype(self.dtype)
            # Standardized by fixed numbers: statistics of the single image would remove its style.
            shape = (1, 1, 1, tap.shape[-1])
            mean = statistics.mean[scale].reshape(shape).astype(self.dtype)
            deviation = statistics.deviation[scale].reshape(shape).astype(self.dtype)
            maps = (tap - mean) / deviation, colour.astype(self.dtype)
            shape = (sum(x.shape[-1] for x in maps), channels)
            kernel, bias = (x.astype(self.dtype) for x in Kernel(shape, name=f"scale{scale}")())
            # The sum of their products: the two side by side would be a copy of the larger one.
            of_tap, of_colour = map(jnp.matmul, maps, split_kernel(kernel, maps))
            pyramid.append(of_tap + of_colour + bias.reshape(1, 1, 1, -1))
        return tuple(pyramid)
