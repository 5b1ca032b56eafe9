"""Attention health: whether the attention says anything, or sits at the uniform value."""

import jax.numpy as jnp


def effective_number(probabilities, axis):
    """exp(entropy) over `axis`: how many entries a distribution really uses, float32."""
    p = probabilities.astype(jnp.float32)
    p = p / p.sum(axis=axis, keepdims=True)  # rounded ones do not sum to 1
    entropy = -(p * jnp.log(jnp.maximum(p, 1e-20))).sum(axis=axis)
    return jnp.exp(entropy)


def attention_health(alignments):
    """Scalars per scale that tell uniform from focused attention.

    Args:
      alignments: one Alignment or None per scale, finest first, of a batch of b images.

    Returns:
      A dict of float32 scalars; for scale i under `attention<i>/`:
        alpha_positions: mean over regions of the effective share of exemplar positions, in (0, 1];
        beta_regions: mean over target positions of the effective number of regions, in [1, K];
        regions_used: effective number of regions of the whole target, in [1, K];
        gamma_mean, gamma_spread: γ's mean, and its deviation over the photos (mean over regions);
        value_cosine: mean cosine between different rows of V, 1 if all regions hold the same style.
    """
    report = {}
    for scale, alignment in enumerate(alignments):
        if alignment is None or alignment.attention is None:  # switched off, or of a kind without α
            continue
        alpha, beta = (x.astype(jnp.float32) for x in (alignment.attention, alignment.assignment))
        gate = alignment.gate
        values = alignment.regions.astype(jnp.float32)
        rows = values / jnp.maximum(jnp.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
        cosine = jnp.einsum("bkn,bjn->bkj", rows, rows)
        k = beta.shape[-1]
        different = cosine.sum(axis=(1, 2)) - jnp.einsum("bkk->b", cosine)
        report |= {
            f"attention{scale}/alpha_positions": (
                effective_number(alpha, (1, 2)).mean() / (alpha.shape[1] * alpha.shape[2])
            ),
            f"attention{scale}/beta_regions": effective_number(beta, -1).mean(),
            f"attention{scale}/regions_used": effective_number(beta.mean(axis=(1, 2)), -1).mean(),
            f"attention{scale}/gamma_mean": gate.mean(),
            f"attention{scale}/gamma_spread": gate.std(axis=0).mean(),
            f"attention{scale}/value_cosine": (different / max(k * (k - 1), 1)).mean(),
        }
    return report
