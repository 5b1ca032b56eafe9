"""The state of a run, and how it is born where it lives."""

import zlib
from typing import Any

import flax
import jax
import jax.numpy as jnp

from mscaflax.nets.encoders import TapStatistics
from mscaflax.nets.vgg import TAP_CHANNELS, vgg16_taps


@flax.struct.dataclass
class TrainState:
    """All that a run carries from step to step; random keys are functions of (seed, stream, step) instead.

    Attributes:
      step: int32 scalar, steps done.
      generator: parameters of the SynthesisNetwork.
      ema: their moving average.
      generator_optimizer: optax state.
      discriminator: parameters.
      spectral: the spectral norms' vectors.
      discriminator_optimizer: optax state.
      statistics: TapStatistics of the training patches.
    """

    MODEL_FIELDS = ("ema", "statistics")  # what inference needs

    step: Any
    generator: Any
    ema: Any
    generator_optimizer: Any
    discriminator: Any
    spectral: Any
    discriminator_optimizer: Any
    statistics: TapStatistics


def stream_key(seed, stream, step):
    """The random key of a named stream at a step: a pure function of (seed, stream, step)."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()))
    return jax.random.fold_in(key, step)


def init_state(experiment, statistics):
    """The state of step 0; a pure function of the experiment's seed and the statistics.

    Jit it with `out_shardings`, so that the parameters are born where they live.
    """
    size = experiment.size
    label = jnp.zeros((1, size, size), jnp.int32)
    image = jnp.zeros((1, size, size, 3))
    taps = [jnp.zeros((1, size >> i, size >> i, c)) for i, c in enumerate(TAP_CHANNELS)]
    key = stream_key(experiment.seed, "init", 0)
    generator = experiment.network.init(
        jax.random.fold_in(key, 0), label, image, label, taps, statistics,
        jax.random.split(jax.random.fold_in(key, 2), 1),
    )["params"]  # fmt: skip
    discriminator = experiment.discriminator.init(jax.random.fold_in(key, 1), image, label)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        generator=generator,
        # A copy: the state is donated, and a buffer cannot be donated twice.
        ema=jax.tree.map(jnp.copy, generator),
        generator_optimizer=experiment.generator_optimizer.init(generator),
        discriminator=discriminator["params"],
        spectral=discriminator["batch_stats"],
        discriminator_optimizer=experiment.discriminator_optimizer.init(discriminator["params"]),
        statistics=statistics,
    )


def neutral_statistics():
    """Mean 0 and deviation 1: the shapes of TapStatistics before anything was measured."""
    return TapStatistics(
        mean=tuple(jnp.zeros((c,)) for c in TAP_CHANNELS),
        deviation=tuple(jnp.ones((c,)) for c in TAP_CHANNELS),
    )


def measure_statistics(vgg, batches):
    """Per-channel mean and deviation of the VGG taps over patches.

    Args:
      vgg: the VGG-16 parameters.
      batches: iterable of [b, h, w, 3] float32 images in [-1, 1], all of one shape.

    Returns:
      TapStatistics; deviations are at least 1e-2, so that a channel that never fires stays harmless.
    """

    @jax.jit
    def moments(vgg, images):
        taps = [t.astype(jnp.float32) for t in vgg16_taps(vgg, images)]
        return [(t.mean(axis=(0, 1, 2)), (t * t).mean(axis=(0, 1, 2))) for t in taps]

    collected = [moments(vgg, images) for images in batches]
    means, deviations = [], []
    for tap in range(len(TAP_CHANNELS)):
        mean = sum(m[tap][0] for m in collected) / len(collected)
        square = sum(m[tap][1] for m in collected) / len(collected)
        means.append(mean)
        deviations.append(jnp.sqrt(jnp.maximum(square - mean * mean, 1e-4)))
    return TapStatistics(mean=tuple(means), deviation=tuple(deviations))
