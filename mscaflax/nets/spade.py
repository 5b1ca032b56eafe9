"""Spatially-adaptive modulation and the residual block made of it (after SPADE, Park et al., CVPR 2019).

With `folded`, all maps are folded, but for the noise, and none has padding; see `mscaflax.nets.folding`.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mscaflax.nets.convolution import EdgeConv, Kernel
from mscaflax.nets.folding import fold, fold_matrix, fold_vector
from mscaflax.nets.layers import normalize
from mscaflax.nets.per_image import convolve_each, convolve_pointwise

HE = nn.initializers.he_normal()
# At the start, beside features of unit deviation: normalization over positions then has noise to normalize
# inside a constant region, and not the rounding of its border.
NOISE_STRENGTH = 0.2


class SpadeModulation(nn.Module):
    """Scale and shift per position by 3×3 convolutions over [F_x1, F_c1].

    Attributes:
      channels: channels of what is modulated.
      hidden: channels of the shared hidden layer.
      dtype: compute dtype.
    """

    channels: int
    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, alignment, label_features, valid=None, folded=False):
        """An Alignment or None, F_c1 [b, h, w, m] → (scale, shift), each [b, h, w, channels]."""
        inputs = [label_features] if alignment is None else [alignment.features, label_features]
        x = EdgeConv(self.hidden, dtype=self.dtype, name="hidden")(*inputs, valid=valid, folded=folded)
        conv = EdgeConv(2 * self.channels, dtype=self.dtype, name="out")
        out = conv(nn.relu(x), valid=valid, folded=folded)
        if not folded:
            return jnp.split(out, 2, axis=-1)
        columns = jnp.split(out, 4, axis=-1)  # scale and shift of the left one, then of the right one
        return tuple(jnp.concatenate(columns[i::2], axis=-1) for i in (0, 1))


class DecoupledModulation(nn.Module):
    """Scale and shift once per region by two dense layers on γ·V, handed out by β, plus a 1×1 of F_c1.

    Costs O(h·w·k·2c) in place of full-resolution 3×3 convolutions. Attributes as SpadeModulation's; `hidden`
    is the width of the region-wise hidden layer.
    """

    channels: int
    hidden: int
    dtype: Any = jnp.float32

    def __call__(self, alignment, label_features, valid=None, folded=False):
        """As SpadeModulation's; an alignment without regions raises ValueError."""
        return modulate_together([self], alignment, label_features, folded)[0]

    @nn.compact
    def operands(self, alignment, label_features, folded=False):
        """What scale and shift are the product of: (inputs [b, h, w, j], kernels [b, j, 2·channels], None).

        Without an alignment (inputs, kernel [j, 2·channels], bias [2·channels]). All folded if `folded`.
        """
        init = nn.initializers.variance_scaling(0.25, "fan_in", "truncated_normal")
        shape = (label_features.shape[-1] // (2 if folded else 1), 2 * self.channels)
        kernel, bias = (x.astype(self.dtype) for x in Kernel(shape, kernel_init=init, name="label")())
        label_features = label_features.astype(self.dtype)
        if alignment is None:
            if folded:
                kernel = _fold_both(kernel)
                bias = jnp.concatenate([fold_vector(part) for part in jnp.split(bias, 2)])
            return label_features, kernel, bias
        if alignment.values is None:
            raise ValueError("decoupled modulation needs an alignment with regions")
        x = nn.Dense(self.hidden, kernel_init=HE, dtype=self.dtype, name="hidden")(alignment.values)
        x = nn.Dense(2 * self.channels, use_bias=False, dtype=self.dtype, kernel_init=HE, name="region")(
            nn.relu(x)
        )
        # One product of both, each image with its own kernel: a map of 2·channels is the largest here, and
        # two sums of it would be three. What β hands out sums to 1, so the bias goes with the regions.
        x = x + bias.reshape(1, 1, -1)
        if folded:
            kernel, x = _fold_both(kernel), _fold_both(x)
        kernels = jnp.broadcast_to(kernel[None], (x.shape[0], *kernel.shape))
        kernels = jnp.concatenate([kernels, x], axis=1)
        inputs = jnp.concatenate([label_features, alignment.assignment.astype(self.dtype)], axis=-1)
        return inputs, kernels, None


def _fold_both(kernel):
    """A kernel [..., j, 2c] for scale and shift, for folded maps: [..., 2j, 4c], the scales first."""
    return jnp.concatenate([fold_matrix(part) for part in jnp.split(kernel, 2, axis=-1)], axis=-1)


def modulate_together(modulations, alignment, label_features, folded=False, convolutions=False):
    """(scale, shift) of each of several DecoupledModulations, by one product that reads the maps once."""
    inputs, kernels, biases = zip(
        *(modulation.operands(alignment, label_features, folded) for modulation in modulations), strict=True
    )
    joint = jnp.concatenate(kernels, axis=-1)
    if joint.ndim == 2:
        out = inputs[0] @ joint + jnp.concatenate(biases).reshape(1, 1, 1, -1)
    elif convolutions:
        out = convolve_each(inputs[0], joint)
    else:
        out = jnp.einsum("bhwj,bjc->bhwc", inputs[0], joint)
    ends = np.cumsum([kernel.shape[-1] // 2 for kernel in kernels for _ in ("scale", "shift")])
    maps = jnp.split(out, ends[:-1], axis=-1)
    return list(zip(maps[::2], maps[1::2], strict=True))


MODULATIONS = {"spade": SpadeModulation, "decoupled": DecoupledModulation}


class ModulatedBlock(nn.Module):
    """Residual block: twice noise, normalization, modulation, activation, 3×3 convolution.

    Attributes:
      channels: channels of the result.
      hidden: width of the modulations' hidden layer.
      modulation: a key of MODULATIONS.
      normalization: `instance` or `position`.
      dtype: compute dtype.
    """

    channels: int
    hidden: int
    modulation: str = "decoupled"
    normalization: str = "instance"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x, alignment, label_features, noise=None, valid=None, folded=False, convolutions=False
    ):
        """x [b, h, w, c], noise None or [b, h, w, 2] → [b, h, w, channels].

        With `convolutions`, the products of `decoupled` modulation and beside the block are convolutions, see
        `mscaflax.nets.per_image`.
        """
        skip = x
        channels = x.shape[-1] // (2 if folded else 1)
        if channels != self.channels:
            kernel, _ = Kernel((channels, self.channels), use_bias=False, name="skip")()
            kernel = kernel.astype(self.dtype)
            product = convolve_pointwise if convolutions else jnp.matmul
            skip = product(x.astype(self.dtype), fold_matrix(kernel) if folded else kernel)
        modulations = [
            MODULATIONS[self.modulation](width, self.hidden, self.dtype, name=f"modulation{i}")
            for i, width in enumerate((channels, self.channels))
        ]
        together = self.modulation == "decoupled"
        if together:
            modulated = modulate_together(modulations, alignment, label_features, folded, convolutions)
        for i in (0, 1):
            if noise is not None:
                strength = self.param(f"noise{i}", nn.initializers.constant(NOISE_STRENGTH), (channels,))
                strength, drawn = strength.astype(x.dtype), noise[..., i : i + 1].astype(x.dtype)
                if folded:
                    x = x + convolve_pointwise(fold(drawn), fold_matrix(strength[None]))
                else:
                    x = x + drawn * strength.reshape(1, 1, 1, -1)
            if together:
                scale, shift = modulated[i]
            else:
                scale, shift = modulations[i](alignment, label_features, valid, folded)
            x = normalize(x, self.normalization, valid, folded) * (1 + scale) + shift
            x = nn.leaky_relu(x, 0.2)
            # The first convolution stands before a normalization, which would cancel its bias.
            conv = EdgeConv(self.channels, use_bias=i == 1, dtype=self.dtype, name=f"conv{i}")
            x = conv(x, valid=valid, folded=folded)
            channels = self.channels
        return skip + x
