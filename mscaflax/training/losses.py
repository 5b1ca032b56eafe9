"""The losses, all in float32: hinge, feature matching, VGG perceptual, L1 (docs/method.md, point 5)."""

import jax
import jax.numpy as jnp


def l1_mean(a, b):
    """Mean absolute difference, float32 scalar; a and b of one shape."""
    return jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)).mean()


def hinge_generator(logits):
    """Mean over scales of -mean(D(fake)); `logits` a sequence of float arrays."""
    return -sum(x.astype(jnp.float32).mean() for x in logits) / len(logits)


def hinge_discriminator(real, fake):
    """Mean over scales of mean(relu(1 - D(real))) + mean(relu(1 + D(fake)))."""
    total = sum(
        jax.nn.relu(1 - r.astype(jnp.float32)).mean() + jax.nn.relu(1 + f.astype(jnp.float32)).mean()
        for r, f in zip(real, fake, strict=True)
    )
    return total / len(real)


def feature_matching(real, fake):
    """Mean over all hidden layers of all discriminators of the L1 mean between their features.

    `real` and `fake` are sequences (scales) of sequences (layers) of arrays; real takes no gradient.
    """
    terms = [
        l1_mean(f, jax.lax.stop_gradient(r))
        for reals, fakes in zip(real, fake, strict=True)
        for r, f in zip(reals, fakes, strict=True)
    ]
    return sum(terms) / len(terms)


def perceptual(real_taps, fake_taps, weights):
    """Sum over the five VGG taps of weight times L1 mean; real takes no gradient."""
    return sum(
        weight * l1_mean(fake, jax.lax.stop_gradient(real))
        for weight, real, fake in zip(weights, real_taps, fake_taps, strict=True)
    )
