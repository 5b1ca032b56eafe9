"""The alignments to choose from: the paper's, and the baselines that it is measured against.

All of them turn the exemplar's image pyramid into one Alignment per scale, laid out as the target, and have
about as many parameters as masked spatial-channel attention with the same channels. What follows is the same.

Axes: b batch, h w positions, c classes (C+1, the last is unlabelled), n image channels, m label channels,
q positions of the target, p positions of the exemplar, d channels of keys and queries.
"""

import importlib
from typing import Any, ClassVar

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from mscaflax.errors import UserError
from mscaflax.nets.convolution import EdgeConv
from mscaflax.nets.layers import average_pool, layer_norm
from mscaflax.nets.msca import (
    HIDDEN,
    Alignment,
    MaskedSpatialChannelAttention,
    distribute,
    of_exemplar,
    visible_mean,
)

LATENT = 64  # channels of the variational baseline's code
DENSE_SCALE = 2  # the dense correspondence is computed at a quarter of the resolution


@flax.struct.dataclass
class AlignmentInputs:
    """What an alignment may look at; pyramids are tuples, one array per scale, finest first.

    Attributes:
      images: F_x2, [b, h', w', n] per scale.
      exemplar_labels: F_c2, [b, h', w', m] per scale.
      target_labels: F_c1, [b, h, w, m] per scale.
      exemplar_map: [b, h', w'] int in 0..C, the exemplar's label map.
      target_map: [b, h, w] int in 0..C, the target's.
      coverage: None, or [b, h, w, 1] float32 per scale: the share of content in each target position.
      visible: None, or [b, h', w', 1] float32 per scale: the share of each exemplar position to be used.
      keys: None, or [b] random keys; without them nothing is drawn.
      itself: None, or [b] bool: what is the exemplar's has the targets' order, see msca.of_exemplar.
    """

    images: tuple
    exemplar_labels: tuple
    target_labels: tuple
    exemplar_map: Any
    target_map: Any
    coverage: tuple
    visible: tuple
    keys: Any = None
    itself: Any = None

    def per_target(self):
        """The same with every target's exemplar in its row, `itself` None."""

        def of_targets(pyramid):
            return tuple(x if x is None else of_exemplar(x, self.itself) for x in pyramid)

        return self.replace(
            images=of_targets(self.images),
            exemplar_labels=of_targets(self.exemplar_labels),
            exemplar_map=of_exemplar(self.exemplar_map, self.itself),
            visible=of_targets(self.visible),
            itself=None,
        )


def msca_parameters(image_channels, label_channels, num_regions, gate_channels=32):
    """Parameters of MaskedSpatialChannelAttention at one scale: what the baselines are given, too."""
    n, m, k = image_channels, label_channels, num_regions
    return (n + m) * k + 2 + 8 * k + (2 * m + 11) * gate_channels + gate_channels + gate_channels + 1


def hidden_width(parameters, inputs, outputs):
    """Width of the hidden layer that gives a two-layer perceptron with biases this many parameters."""
    return max(1, round((parameters - outputs) / (inputs + outputs + 1)))


class Aligner(nn.Module):
    """Common fields of the alignments; a call takes AlignmentInputs.

    A call returns a tuple of one Alignment (or None, where the scale is off) per scale, and the
    Kullback-Leibler divergence of the code that was drawn, a float32 scalar, 0 for all but `vae`.

    Attributes:
      num_classes: C.
      num_regions: K.
      image_channels, label_channels: N_i, M_i, finest first.
      scales: which scales align the exemplar, finest first.
      masking, mask_fill: see MaskedSpatialChannelAttention.
      dtype: compute dtype.
      has_regions: (of the class) whether its Alignments have an assignment and values, as `decoupled`
        modulation needs.
      takes_photos: (of the class) whether `itself` may be other than None.
    """

    has_regions: ClassVar[bool] = False
    takes_photos: ClassVar[bool] = False

    num_classes: int
    num_regions: int
    image_channels: tuple[int, ...]
    label_channels: tuple[int, ...]
    scales: tuple[bool, ...]
    masking: bool = True
    mask_fill: str = "global"
    dtype: Any = jnp.float32

    def budget(self, scale):
        """Parameters of this scale's alignment."""
        return msca_parameters(self.image_channels[scale], self.label_channels[scale], self.num_regions)

    def perceptron(self, x, scale, name):
        """Two layers from x's channels to N_i within the budget of the scale."""
        n = self.image_channels[scale]
        hidden = hidden_width(self.budget(scale), x.shape[-1], n)
        x = nn.relu(nn.Dense(hidden, dtype=self.dtype, name=f"{name}_hidden")(x))
        return nn.Dense(n, dtype=self.dtype, name=f"{name}_out")(x)


class MscaAligner(Aligner):
    """Masked spatial-channel attention at every scale (Zheng et al., ECCV 2020)."""

    has_regions = takes_photos = True

    @nn.compact
    def __call__(self, inputs):
        alignments = []
        for scale, on in enumerate(self.scales):
            if not on:
                alignments.append(None)
                continue
            attend = MaskedSpatialChannelAttention(
                self.num_regions, self.masking, self.mask_fill, dtype=self.dtype, name=f"scale{scale}"
            )
            alignments.append(
                attend(
                    inputs.images[scale],
                    inputs.exemplar_labels[scale],
                    inputs.target_labels[scale],
                    inputs.coverage[scale],
                    inputs.visible[scale],
                    inputs.itself,
                )
            )
        return tuple(alignments), jnp.zeros((), jnp.float32)


class GlobalAligner(Aligner):
    """`gap`: the exemplar's mean and deviation at every scale, as AdaIN has (Huang et al., ICCV 2017)."""

    @nn.compact
    def __call__(self, inputs):
        alignments = []
        for scale, on in enumerate(self.scales):
            if not on:
                alignments.append(None)
                continue
            image = inputs.images[scale].astype(jnp.float32)
            visible = inputs.visible[scale]
            mean = visible_mean(image, visible)
            # The floor under the root keeps its derivative finite where a channel is constant.
            deviation = jnp.sqrt(visible_mean((image - mean[:, None, None]) ** 2, visible) + 1e-6)
            style = jnp.concatenate([mean, deviation], axis=-1).astype(self.dtype)
            style = self.perceptron(style, scale, f"scale{scale}")
            alignments.append(_everywhere(style, inputs.target_labels[scale]))
        return tuple(alignments), jnp.zeros((), jnp.float32)


class VariationalAligner(Aligner):
    """`vae`: one Gaussian code for the exemplar, as SPADE's image encoder (Park et al., CVPR 2019)."""

    @nn.compact
    def __call__(self, inputs):
        # The encoder has what the dense layers from the code to each scale leave of the budget.
        on = [scale for scale, on in enumerate(self.scales) if on]
        budget = sum(self.budget(scale) - (LATENT + 1) * self.image_channels[scale] for scale in on)
        coarsest = inputs.images[-1]
        n = coarsest.shape[-1]
        hidden = max(1, round(budget / (9 * n + 1 + 2 * LATENT)))
        x = nn.relu(EdgeConv(hidden, dtype=self.dtype, name="encoder")(coarsest))
        x = visible_mean(x, inputs.visible[-1])
        code = nn.Dense(2 * LATENT, dtype=self.dtype, name="code")(x).astype(jnp.float32)
        mean, log_variance = jnp.split(code, 2, axis=-1)
        divergence = 0.5 * (jnp.exp(log_variance) + mean * mean - 1 - log_variance).sum(axis=-1).mean()
        z = mean
        if inputs.keys is not None:
            draw = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 0x7AE), (LATENT,)))
            z = mean + jnp.exp(0.5 * log_variance) * draw(inputs.keys)
        alignments = []
        for scale, on in enumerate(self.scales):
            if not on:
                alignments.append(None)
                continue
            style = nn.Dense(self.image_channels[scale], dtype=self.dtype, name=f"scale{scale}")(z)
            alignments.append(_everywhere(style, inputs.target_labels[scale]))
        return tuple(alignments), divergence


class ClassAligner(Aligner):
    """`class`: one average per semantic class, as SEAN (Zhu et al., CVPR 2020); else the mean."""

    has_regions = True

    @nn.compact
    def __call__(self, inputs):
        exemplar, target = (
            jax.nn.one_hot(labels, self.num_classes + 1, dtype=jnp.float32)
            for labels in (inputs.exemplar_map, inputs.target_map)
        )
        if inputs.visible[0] is not None:
            exemplar = exemplar * inputs.visible[0]
        alignments = []
        for scale, on in enumerate(self.scales):
            if scale:
                exemplar, target = average_pool(exemplar), average_pool(target)
            if not on:
                alignments.append(None)
                continue
            image = inputs.images[scale].astype(jnp.float32)
            area = exemplar.sum(axis=(1, 2))[..., None]
            means = jnp.einsum("bhwc,bhwn->bcn", exemplar, image) / jnp.maximum(area, 1e-6)
            means = jnp.where(area > 0, means, visible_mean(image, inputs.visible[scale])[:, None])
            values = self.perceptron(means.astype(self.dtype), scale, f"scale{scale}")
            alignments.append(Alignment(distribute(target, values), target, values))
        return tuple(alignments), jnp.zeros((), jnp.float32)


class DenseAligner(Aligner):
    """`dense`: softmax correspondence of all positions, as CoCosNet (Zhang et al., CVPR 2020) in spirit.

    Keys and queries at a quarter of the resolution: queries from the target's label features, keys from the
    exemplar's label and image features, the label projection shared. Values are the features of every scale,
    brought to that resolution without loss where it is coarser. Costs O((h·w)²·n).
    """

    @nn.compact
    def __call__(self, inputs):
        at = min(DENSE_SCALE, len(self.scales) - 1)
        image, exemplar, target = (
            layer_norm(pyramid[at].astype(self.dtype))
            for pyramid in (inputs.images, inputs.exemplar_labels, inputs.target_labels)
        )
        n, m = image.shape[-1], target.shape[-1]
        budget = sum(self.budget(scale) for scale, on in enumerate(self.scales) if on)
        width = max(1, round(budget / (n + m)))
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        w_x = self.param("image_projection", init, (n, width)).astype(self.dtype)
        w_c = self.param("label_projection", init, (m, width)).astype(self.dtype)
        temperature = self.param("temperature", nn.initializers.constant(2.0), ())
        query_bqd = _flat(jnp.einsum("bhwm,md->bhwd", target, w_c))
        key_bpd = _flat(jnp.einsum("bhwm,md->bhwd", exemplar, w_c) + jnp.einsum("bhwn,nd->bhwd", image, w_x))
        logits_bqp = jnp.einsum("bqd,bpd->bqp", query_bqd, key_bpd).astype(jnp.float32) * width**-0.5
        logits_bqp = temperature * logits_bqp
        if inputs.visible[at] is not None:
            logits_bqp = logits_bqp + jnp.log(jnp.maximum(_flat(inputs.visible[at]), HIDDEN)).mT
        weights_bqp = jax.nn.softmax(logits_bqp, axis=-1)
        alignments = []
        for scale, on in enumerate(self.scales):
            if not on:
                alignments.append(None)
                continue
            values = _resample(inputs.images[scale], scale - at)
            warped = jnp.einsum("bqp,bpn->bqn", weights_bqp.astype(values.dtype), _flat(values))
            warped = warped.reshape(*target.shape[:3], -1)
            alignments.append(Alignment(_restore(warped, scale - at)))
        return tuple(alignments), jnp.zeros((), jnp.float32)


ALIGNMENTS = {
    "msca": MscaAligner,
    "gap": GlobalAligner,
    "vae": VariationalAligner,
    "class": ClassAligner,
    "dense": DenseAligner,
}


def find_alignment(name):
    """The subclass of Aligner that `config.model.alignment` names.

    Args:
      name: a key of ALIGNMENTS, or "module:Class" of an installed module: see docs/extending.md.

    Raises:
      UserError: there is none.
    """
    if name in ALIGNMENTS:
        return ALIGNMENTS[name]
    module, colon, class_name = name.partition(":")
    choices = f"choose one of {', '.join(ALIGNMENTS)}, or a class of your own as module:Class"
    if not colon:
        raise UserError(f"config.model.alignment is {name!r}; {choices}")
    try:
        found = getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"config.model.alignment {name!r} cannot be imported ({error}); {choices}") from None
    if not isinstance(found, type) or not issubclass(found, Aligner):
        raise UserError(f"config.model.alignment {name!r} is no subclass of mscaflax.nets.alignments.Aligner")
    return found


def _everywhere(style_bn, like):
    """The same style at every position of the target."""
    b, h, w = like.shape[:3]
    return Alignment(jnp.broadcast_to(style_bn[:, None, None, :], (b, h, w, style_bn.shape[-1])))


def _flat(x):
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _resample(x, steps):
    """To a resolution 2^steps times as high: a finer x folds cells into channels, a coarser one repeats."""
    b, h, w, c = x.shape
    if steps < 0:
        f = 2**-steps
        x = x.reshape(b, h // f, f, w // f, f, c)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // f, w // f, f * f * c)
    return jnp.repeat(jnp.repeat(x, 2**steps, axis=1), 2**steps, axis=2)


def _restore(x, steps):
    """The inverse of `_resample`; means of cells where it repeated."""
    b, h, w, c = x.shape
    if steps < 0:
        f = 2**-steps
        x = x.reshape(b, h, w, f, f, c // (f * f))
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * f, w * f, c // (f * f))
    return average_pool(x, 2**steps) if steps else x
