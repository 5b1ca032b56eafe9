"""Masked spatial-channel attention (Zheng et al., ECCV 2020; the formulas are written out in docs/method.md).

Axes: b batch, h w positions, k regions, n image channels, m label channels. The exemplar's positions and the
target's need not be of one size.
"""

import functools
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from mscaflax.nets.layers import layer_norm, normalized_product

HIDDEN = 1e-30  # what a position that is not visible counts, against 1: nothing beside any logit


@flax.struct.dataclass
class Alignment:
    """What one scale hands to the synthesis.

    Attributes:
      features: [b, h, w, n] the exemplar's features, laid out as the target (F_x1).
      assignment: [b, h, w, k] β, which region each target position takes, in the compute dtype (of `class`,
        float32); None without regions.
      values: [b, k, n] γ·V, filled, the style of each region; None without regions.
      attention: [b, h, w, k] α over the exemplar's positions, in the compute dtype; None without regions.
      gate: [b, k] float32 γ in [0, 1]; None without regions.
      regions: [b, k, n] V, the regions' features before masking; None without regions.
    """

    features: Any
    assignment: Any = None
    values: Any = None
    attention: Any = None
    gate: Any = None
    regions: Any = None


def distribute(assignment_bhwk, values_bkn):
    """Hands each target position the values of the regions it takes; [b, h, w, n], in the values' dtype."""
    return jnp.einsum("bhwk,bkn->bhwn", assignment_bhwk.astype(values_bkn.dtype), values_bkn)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def softmax(logits, axis, dtype):
    """Softmax of float32 logits, in `dtype`, which is all that the backward pass keeps of it."""
    if dtype == jnp.float32:
        return jax.nn.softmax(logits, axis=axis)
    # Exponentials are computed twice, once for their sum: that moves less than a float32 map of them.
    return jnp.exp(logits - jax.nn.logsumexp(logits, axis=axis, keepdims=True)).astype(dtype)


def _softmax_forward(logits, axis, dtype):
    weights = softmax(logits, axis, dtype)
    return weights, weights


def _softmax_backward(axis, dtype, weights, gradient):
    # Without the barrier, XLA would leave the gradient's rounding out, and write it as float32.
    weights, gradient = (x.astype(jnp.float32) for x in (weights, jax.lax.optimization_barrier(gradient)))
    # Rounded weights do not sum to 1, and what they take off must be a mean.
    mean = (weights * gradient).sum(axis=axis, keepdims=True) / weights.sum(axis=axis, keepdims=True)
    return (weights * (gradient - mean),)


softmax.defvjp(_softmax_forward, _softmax_backward)


def spatial_attention(logits_bhwk, visible_bhw1=None, dtype=jnp.float32):
    """α: softmax of each region's logits over the exemplar's positions, computed in float32, in `dtype`.

    `visible_bhw1`: None, or float32 in [0, 1], the share of each position that may be looked at: α is
    proportional to it.
    """
    logits = logits_bhwk.astype(jnp.float32)
    if visible_bhw1 is not None:
        logits = logits + jnp.log(jnp.maximum(visible_bhw1, HIDDEN))
    return softmax(logits, (1, 2), dtype)


def visible_mean(x_bhwn, visible_bhw1=None):
    """Mean over the positions, each weighed by how much of it is visible (None: all): [b, n], x's dtype."""
    if visible_bhw1 is None:
        return x_bhwn.mean(axis=(1, 2))
    weight = visible_bhw1 / jnp.maximum(visible_bhw1.sum(axis=(1, 2), keepdims=True), HIDDEN)
    return jnp.einsum("bhw,bhwn->bn", weight[..., 0].astype(x_bhwn.dtype), x_bhwn)


def channel_attention(logits_bhwk, dtype=jnp.float32):
    """β: softmax over regions at each target position, computed in float32, in `dtype`."""
    return softmax(logits_bhwk.astype(jnp.float32), -1, dtype)


def of_exemplar(rows, itself):
    """What belongs to each target's exemplar, of rows that belong to the batch's own photos.

    Args:
      rows: [b, ...] in the order of the photos, which are the targets; pairs stand side by side.
      itself: [b] bool: the exemplar is the target itself, and not the other photo of its pair. None: the rows
        belong to the exemplars already.

    Returns:
      [b, ...] in the order of the targets.
    """
    if itself is None:
        return rows
    pairs = rows.reshape(-1, 2, *rows.shape[1:])
    return jnp.where(itself.reshape(-1, *(1,) * (rows.ndim - 1)), rows, pairs[:, ::-1].reshape(rows.shape))


class MaskedSpatialChannelAttention(nn.Module):
    """One scale of the alignment: α gathers K regions of the exemplar, β hands them out, γ masks them.

    Cost is O(h·w·k·(n+m)), linear in the number of positions.

    Attributes:
      num_regions: K.
      masking: whether γ is computed; without it γ = 1.
      mask_fill: what a masked region holds: `zero`, or `global`, the exemplar's mean feature times 1-γ.
      gate_channels: width of γ's hidden layer.
      dtype: dtype of the products over positions, and of what the softmaxes give; these, γ's perceptron and
        the deviations of the layer norms are computed in float32.
    """

    num_regions: int
    masking: bool = True
    mask_fill: str = "global"
    gate_channels: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, image_bhwn, exemplar_label_bhwm, target_label_bhwm, coverage=None, visible=None, itself=None
    ):
        """Aligns the exemplar's features with the target's layout.

        Args:
          image_bhwn: F_x2, features of the exemplar.
          exemplar_label_bhwm: F_c2, label features of the exemplar, same h and w.
          target_label_bhwm: F_c1, label features of the target, its own h and w.
          coverage: None, or [b, h, w, 1] float32, the share of content in each target position; padding
            has no weight in γ.
          visible: None, or [b, h, w, 1] float32, the share of each exemplar position that may be used.
          itself: None, or [b] bool: the exemplar's arrays have the targets' order, see `of_exemplar`, and
            `exemplar_label_bhwm` is the target's. Regions change hands then, and no maps.

        Returns:
          An Alignment.
        """
        if self.mask_fill not in ("zero", "global"):
            raise ValueError(f"mask_fill is {self.mask_fill!r}, allowed are 'zero' and 'global'")
        image = image_bhwn.astype(self.dtype)
        num_image, num_label = image_bhwn.shape[-1], exemplar_label_bhwm.shape[-1]
        # Layer-normalized inputs and fan-in scaled weights give logits of deviation 1 per term. The
        # temperatures raise that to about 2: softmax over thousands of positions stays uniform otherwise.
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        w_x = self.param("image_projection", init, (num_image, self.num_regions))
        w_c = self.param("label_projection", init, (num_label, self.num_regions))
        a = self.param("alpha_temperature", nn.initializers.constant(2**0.5), ())
        b = self.param("beta_temperature", nn.initializers.constant(2.0), ())

        def label_logits_of(label_bhwm):
            return normalized_product(label_bhwm.astype(self.dtype), w_c)

        target_logits = label_logits_of(target_label_bhwm)
        label_logits = target_logits if itself is not None else label_logits_of(exemplar_label_bhwm)
        image_logits = normalized_product(image, w_x)
        alpha = spatial_attention(a * (image_logits + label_logits).astype(jnp.float32), visible, self.dtype)
        beta = channel_attention(b * target_logits.astype(jnp.float32), self.dtype)

        found = {"regions": jnp.einsum("bhwk,bhwn->bkn", alpha, image)}
        if self.masking:
            found["labels"] = self._weigh(alpha, exemplar_label_bhwm)
            found["logits"] = (alpha.astype(jnp.float32) * label_logits.astype(jnp.float32)).sum(axis=(1, 2))
            if self.mask_fill == "global":
                found["mean"] = visible_mean(image, visible)
        found = {name: of_exemplar(rows, itself) for name, rows in found.items()}
        values = found["regions"]
        if self.masking:
            gamma = self._gate(
                (found["labels"], found["logits"]), (beta, target_label_bhwm, target_logits), coverage
            )
            gate = gamma[..., None].astype(self.dtype)
            values = gate * values
            if self.mask_fill == "global":
                values = values + (1 - gate) * found["mean"][:, None, :]
        else:
            gamma = jnp.ones((image.shape[0], self.num_regions), jnp.float32)
        return Alignment(
            distribute(beta, values), beta, values, of_exemplar(alpha, itself), gamma, found["regions"]
        )

    def _weigh(self, weight_bhwk, label_bhwm):
        """Sums of label features by weight, [b, k, m] float32."""
        # Over all positions in the compute dtype: float32 maps would double the bytes moved.
        weight, label = weight_bhwk.astype(self.dtype), label_bhwm.astype(self.dtype)
        return jnp.einsum("bhwk,bhwm->bkm", weight, label).astype(jnp.float32)

    def _gate(self, exemplar, target, coverage):
        """γ [b, k] from what each region is, who takes it, how like they are, and which region it is.

        The exemplar as its regions' (label features [b, k, m], label logits [b, k]), the target as (β
        [b, h, w, k], label features [b, h, w, m], label logits [b, h, w, k]).
        """
        (region_is, offered), (beta, target_label, target_logits) = exemplar, target
        beta = beta.astype(jnp.float32)
        taken = beta if coverage is None else beta * coverage
        positions = beta.shape[1] * beta.shape[2] if coverage is None else coverage.sum(axis=(1, 2))
        demand = taken.sum(axis=(1, 2))
        consumer_is = self._weigh(taken, target_label) / (demand[..., None] + 1e-6)
        share = (demand / positions * self.num_regions)[..., None]
        # Whether a region is what its takers are is a comparison, which a small perceptron on both sides'
        # features would have to learn class by class; classes that the exemplar lacks are rare in training.
        likeness = (layer_norm(region_is) * layer_norm(consumer_is)).mean(axis=-1, keepdims=True)
        wanted = (taken * target_logits.astype(jnp.float32)).sum(axis=(1, 2)) / (demand + 1e-6)
        match = jnp.concatenate([likeness, (wanted - offered)[..., None]], axis=-1)
        embedding = self.param("region_embedding", nn.initializers.normal(1.0), (self.num_regions, 8))
        embedding = jnp.broadcast_to(embedding[None], (beta.shape[0], *embedding.shape))
        inputs = jnp.concatenate([region_is, consumer_is, share, match, embedding], axis=-1)
        hidden = nn.relu(nn.Dense(self.gate_channels, name="gate_hidden")(inputs))
        # The bias of +2 opens every region at the start: sigmoid(2) is 0.88.
        logit = nn.Dense(1, bias_init=nn.initializers.constant(2.0), name="gate_out")(hidden)
        return jax.nn.sigmoid(logit[..., 0])
