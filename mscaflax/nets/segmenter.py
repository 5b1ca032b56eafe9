"""The segmenter's decoder: VGG-16 taps → class logits at full resolution.

A feature pyramid (Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017) with one residual
block (He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016) per scale. The frozen taps know
objects and textures; the decoder only has to combine them, so it is light: with the default channels a tenth
of VGG's multiplications.

Axes: b batch, h w positions, c channels, C classes.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mscaflax.nets.convolution import EdgeConv
from mscaflax.nets.layers import upsample


class SegmentationDecoder(nn.Module):
    """Predicts the class of every pixel; fully convolutional.

    Attributes:
      num_classes: C.
      channels: width per scale, finest first, one per tap.
      dtype: compute dtype; the logits are float32.
    """

    num_classes: int
    channels: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, taps, statistics):
        """Runs from the coarsest tap to the finest.

        Args:
          taps: of `vgg16_taps`, [b, h/2^i, w/2^i, c_i] with sizes rounded down, finest first.
          statistics: TapStatistics, which standardize the taps.

        Returns:
          [b, h, w, C] float32 logits.
        """
        x = None
        for scale in reversed(range(len(self.channels))):
            channels = self.channels[scale]
            tap = taps[scale].astype(self.dtype)
            shape = (1, 1, 1, tap.shape[-1])
            mean = statistics.mean[scale].reshape(shape).astype(self.dtype)
            deviation = statistics.deviation[scale].reshape(shape).astype(self.dtype)
            lateral = nn.Dense(channels, dtype=self.dtype, name=f"tap{scale}")((tap - mean) / deviation)
            if x is None:
                x = lateral
            else:
                # Narrowed before it is enlarged: the same result for a quarter of the work.
                x = nn.Dense(channels, use_bias=False, dtype=self.dtype, name=f"coarser{scale}")(x)
                x = lateral + _enlarge(x, lateral.shape[1:3])
            y = nn.relu(nn.LayerNorm(dtype=self.dtype, name=f"norm{scale}")(x))
            x = x + EdgeConv(channels, dtype=self.dtype, name=f"block{scale}")(y)
        x = nn.relu(nn.LayerNorm(dtype=self.dtype, name="norm")(x))
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="classes")(x)


def _enlarge(x, size):
    """Bilinear ×2 to [b, *size, c]; where a pooling dropped a row or column, the last one is repeated."""
    x = upsample(x)
    height, width = (target - have for target, have in zip(size, x.shape[1:3], strict=True))
    return jnp.pad(x, ((0, 0), (0, height), (0, width), (0, 0)), mode="edge") if height or width else x
