"""Two-scale patch discriminator on [image, label], spectrally and instance-normalized."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mscaflax.nets.convolution import Kernel, split_kernel
from mscaflax.nets.encoders import class_shares, folded_one_hot
from mscaflax.nets.folding import fold, fold_kernel, fold_matrix, round_to
from mscaflax.nets.layers import average_pool, instance_norm
from mscaflax.nets.per_image import convolve_pointwise


class StridedConv(nn.Module):
    """4×4 convolution of stride 2 of several maps, whose channels count as one after the other.

    The sum of their convolutions, not that of one long map: it would be a copy, and what real and synthesized
    images share, the label features, is computed once.

    Attributes:
      features: channels of the result.
      use_bias: as nn.Conv's.
      dtype: compute dtype.
    """

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, *maps, folded=False):
        """Maps [b, h, w, c] → [b, h/2, w/2, features], sides rounded up.

        With `folded` the maps are folded (`mscaflax.nets.folding`), and the result is not; h is even.
        """
        shape = (4, 4, sum(x.shape[-1] for x in maps) // (2 if folded else 1), self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        y = 0
        for x, part in zip(maps, split_kernel(kernel.astype(self.dtype), maps, folded), strict=True):
            strides, padding = (2, 2), "SAME"
            if folded:
                part, columns = fold_kernel(part, stride=2)
                strides, padding = (2, 1), ((1, 1), columns)
            y = y + jax.lax.conv_general_dilated(
                x.astype(self.dtype), part, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class PatchDiscriminator(nn.Module):
    """4×4 convolutions of stride 2, each but the first instance-normalized, then a map of logits.

    Attributes:
      channels: channels of each hidden layer.
      dtype: compute dtype.
    """

    channels: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, *maps, update_stats, folded=False):
        """Maps [b, h, w, c] → (logits [b, h', w', 1] float32, features of every hidden layer).

        With `folded`, the maps are folded, and nothing that comes out.
        """
        features = []
        for i, channels in enumerate(self.channels):
            # A bias before instance normalization would be cancelled.
            conv = StridedConv(channels, use_bias=i == 0, dtype=self.dtype, name=f"conv{i}")
            x = nn.SpectralNorm(conv, name=f"norm{i}")(
                *maps, update_stats=update_stats, folded=folded and i == 0
            )
            if i:
                # Spectral norm shrinks features layer by layer, and with them feature matching.
                x = instance_norm(x)
            x = nn.leaky_relu(x, 0.2)
            features.append(x)
            maps = (x,)
        conv = nn.Conv(1, (4, 4), dtype=self.dtype, name="logits")
        logits = nn.SpectralNorm(conv, name="logits_norm")(x, update_stats=update_stats)
        return logits.astype(jnp.float32), tuple(features)


class MultiScaleDiscriminator(nn.Module):
    """One PatchDiscriminator per scale, each on the input halved once more.

    Attributes:
      num_classes: C.
      channels: channels of each hidden layer.
      label_channels: width of the label embedding that is concatenated with the image.
      num_scales: how many discriminators.
      fold_columns: whether the first one takes folded maps (`mscaflax.nets.folding`), and the others read the
        classes off the labels: the same function.
      dtype: compute dtype.
    """

    num_classes: int
    channels: tuple[int, ...]
    label_channels: int = 16
    num_scales: int = 2
    fold_columns: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image, label, update_stats=False):
        """image [b, h, w, 3] in [-1, 1], label [b, h, w] int in 0..C → ((logits, features), …) per scale.

        `update_stats` runs one power iteration of the spectral norms; the collection `batch_stats` must then
        be mutable.
        """
        classes = self.num_classes + 1
        embed, _ = Kernel((classes, self.label_channels), use_bias=False, name="embed")()
        embed = embed.astype(self.dtype)
        # Shares of classes are pooled, and not their features: they are read off the labels, not a large map.
        shares = None if self.fold_columns else jax.nn.one_hot(label, classes, dtype=self.dtype)
        outputs = []
        for scale in range(self.num_scales):
            folded = self.fold_columns and not scale
            if scale:
                image = average_pool(image)
                shares = None if self.fold_columns else average_pool(shares)
            if folded:
                shown, kernel = folded_one_hot(label, classes, self.dtype), fold_matrix(embed)
                labels = convolve_pointwise(shown, kernel)
            elif self.fold_columns:
                labels = convolve_pointwise(class_shares(label, classes, 2**scale, self.dtype), embed)
            else:
                labels = shares @ embed
            patches = PatchDiscriminator(self.channels, self.dtype, name=f"scale{scale}")
            seen = fold(round_to(image, self.dtype)) if folded else image
            outputs.append(patches(seen, labels, update_stats=update_stats, folded=folded))
        return tuple(outputs)
