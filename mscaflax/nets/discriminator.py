"""Two-scale patch discriminator on [image, label], spectrally and instance-normalized."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mscaflax.nets.layers import average_pool, instance_norm


class PatchDiscriminator(nn.Module):
    """4×4 convolutions of stride 2, each but the first instance-normalized, then a map of logits.

    Attributes:
      channels: channels of each hidden layer.
      dtype: compute dtype.
    """

    channels: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, update_stats):
        """x [b, h, w, c] → (logits [b, h', w', 1] float32, features of every hidden layer)."""
        features = []
        for i, channels in enumerate(self.channels):
            # A bias before instance normalization would be cancelled.
            conv = nn.Conv(channels, (4, 4), strides=2, use_bias=i == 0, dtype=self.dtype, name=f"conv{i}")
            x = nn.SpectralNorm(conv, name=f"norm{i}")(x, update_stats=update_stats)
            if i:
                # Spectral norm shrinks features layer by layer, and with them feature matching.
                x = instance_norm(x)
            x = nn.leaky_relu(x, 0.2)
            features.append(x)
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
      dtype: compute dtype.
    """

    num_classes: int
    channels: tuple[int, ...]
    label_channels: int = 16
    num_scales: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image, label, update_stats=False):
        """image [b, h, w, 3] in [-1, 1], label [b, h, w] int in 0..C → ((logits, features), …) per scale.

        `update_stats` runs one power iteration of the spectral norms; the collection `batch_stats` must then
        be mutable.
        """
        embedded = jax.nn.one_hot(label, self.num_classes + 1, dtype=self.dtype)
        embedded = nn.Dense(self.label_channels, use_bias=False, dtype=self.dtype, name="embed")(embedded)
        x = jnp.concatenate([image.astype(self.dtype), embedded], axis=-1)
        outputs = []
        for scale in range(self.num_scales):
            if scale:
                x = average_pool(x)
            outputs.append(
                PatchDiscriminator(self.channels, self.dtype, name=f"scale{scale}")(x, update_stats)
            )
        return tuple(outputs)
