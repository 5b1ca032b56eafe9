"""From a config to what trains: networks, optimizers, loss weights."""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import optax

from mscaflax.errors import UserError
from mscaflax.nets.alignments import find_alignment
from mscaflax.nets.discriminator import MultiScaleDiscriminator
from mscaflax.nets.generator import SynthesisNetwork
from mscaflax.nets.vgg import TAP_CHANNELS

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
OPTIMIZERS = ("adam", "sgd")
_CHOICES = {
    "mask_fill": ("zero", "global"),
    "modulation": ("spade", "decoupled"),
    "normalization": ("instance", "position"),
    "dtype": tuple(DTYPES),
}
_PER_SCALE = (
    "image_channels",
    "label_channels",
    "generator_channels",
    "hidden_channels",
    "attention_scales",
    "synthesis_noise",
)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the generator's losses; `perceptual_taps` those of the VGG taps inside `perceptual`."""

    adversarial: float
    feature_matching: float
    perceptual: float
    perceptual_taps: tuple[float, ...]
    l1: float
    divergence: float


@dataclass(frozen=True)
class Experiment:
    """Everything the train step needs but the state, the VGG weights and the data; hashable parts only.

    Attributes:
      network: the generator with its encoders and attention.
      discriminator: the two-scale patch discriminator.
      generator_optimizer, discriminator_optimizer: optax transformations.
      loss: LossWeights.
      ema_decay: upper bound of the moving average's decay.
      seed: root of every random key.
      size: side of the training patches.
      accumulate: parts of the batch that a step works through one after the other.
      hidden_share: share of the examples whose exemplar hides half of its classes from the alignment.
      both_directions: whether examples 2i and 2i+1 of a batch are one pair, either way round.
      dtype: compute dtype of the frozen VGG.
      tpu_options: (name, value) of the TPU compiler's options.
    """

    network: SynthesisNetwork
    discriminator: MultiScaleDiscriminator
    generator_optimizer: optax.GradientTransformation
    discriminator_optimizer: optax.GradientTransformation
    loss: LossWeights
    ema_decay: float
    seed: int
    size: int
    accumulate: int
    hidden_share: float
    both_directions: bool
    dtype: Any
    tpu_options: tuple[tuple[str, str], ...] = ()


def build_network(model_config, num_classes):
    """The SynthesisNetwork that `config.model` describes.

    Raises:
      UserError: a value that is not among the choices, or lists that do not have one entry per VGG tap.
    """
    for key, choices in _CHOICES.items():
        if model_config[key] not in choices:
            raise UserError(
                f"config.model.{key} is {model_config[key]!r}; choose one of {', '.join(choices)}"
            )
    for key in _PER_SCALE:
        if len(model_config[key]) != len(TAP_CHANNELS):
            raise UserError(
                f"config.model.{key} has {len(model_config[key])} entries; give {len(TAP_CHANNELS)}, "
                "one per scale, finest first"
            )
    if model_config.num_regions < 1:
        raise UserError(f"config.model.num_regions is {model_config.num_regions}; it must be at least 1")
    alignment = find_alignment(model_config.alignment)
    if model_config.modulation == "decoupled" and not alignment.has_regions:
        raise UserError(
            f"config.model.alignment {model_config.alignment!r} has no regions: it needs "
            "config.model.modulation 'spade'"
        )
    fields = {key: tuple(v) if key in _PER_SCALE else v for key, v in model_config.items()}
    return SynthesisNetwork(num_classes=num_classes, **{**fields, "dtype": DTYPES[model_config.dtype]})


def build_experiment(config, num_classes):
    """The Experiment that a config describes, for a dataset of `num_classes` classes.

    Raises:
      UserError: as build_network; or a patch size that the scales do not divide.
    """
    network = build_network(config.model, num_classes)
    if config.data.size % network.size_multiple or config.data.size < 2 * network.size_multiple:
        raise UserError(
            f"config.data.size is {config.data.size}; it must be a multiple of {network.size_multiple}, "
            f"at least {2 * network.size_multiple}"
        )
    _check_discriminator(config.discriminator, config.data.size)
    if not 0 <= config.data.hidden_share <= 1:
        raise UserError(f"config.data.hidden_share is {config.data.hidden_share}; it must lie in 0..1")
    taps = tuple(config.loss.perceptual_taps)
    if len(taps) != len(TAP_CHANNELS):
        raise UserError(
            f"config.loss.perceptual_taps has {len(taps)} entries; give {len(TAP_CHANNELS)}, "
            "one per VGG tap, relu1_2 first"
        )
    for key, values in (("loss.perceptual_taps", taps), ("model.synthesis_noise", network.synthesis_noise)):
        if not all(isinstance(x, (int, float)) and 0 <= x < math.inf for x in values):
            raise UserError(f"config.{key} is {values}; give finite numbers from 0 on")
    dtype = DTYPES[config.model.dtype]
    discriminator = MultiScaleDiscriminator(
        num_classes=num_classes,
        channels=tuple(config.discriminator.channels),
        label_channels=config.discriminator.label_channels,
        num_scales=config.discriminator.num_scales,
        fold_columns=config.model.fold_columns,
        dtype=dtype,
    )

    def optimizer(rate):
        schedule = _rate_schedule(rate, config.train.steps, config.optimizer.decay_from)
        if config.optimizer.kind == "sgd":
            return optax.sgd(schedule)
        return optax.adam(schedule, b1=config.optimizer.beta1, b2=config.optimizer.beta2)

    if config.optimizer.kind not in OPTIMIZERS:
        raise UserError(
            f"config.optimizer.kind is {config.optimizer.kind!r}; choose one of {', '.join(OPTIMIZERS)}"
        )

    return Experiment(
        network=network,
        discriminator=discriminator,
        generator_optimizer=optimizer(config.optimizer.generator_rate),
        discriminator_optimizer=optimizer(config.optimizer.discriminator_rate),
        loss=LossWeights(**{**config.loss, "perceptual_taps": taps}),
        ema_decay=config.optimizer.ema_decay,
        seed=config.seed,
        size=config.data.size,
        accumulate=config.train.accumulate,
        hidden_share=config.data.hidden_share,
        both_directions=config.data.both_directions,
        dtype=dtype,
        tpu_options=_compiler_options(config.train.tpu_options),
    )


def _compiler_options(texts):
    found = tuple(tuple(text.split("=", 1)) if isinstance(text, str) else () for text in texts)
    if not all(len(option) == 2 and option[0].startswith("xla_") for option in found):
        raise UserError(f"config.train.tpu_options is {tuple(texts)}; give each as 'xla_NAME=VALUE'")
    return found


def _check_discriminator(config, size):
    if not config.channels or config.num_scales < 1:
        raise UserError("config.discriminator needs at least one hidden layer and one scale")
    # The last hidden layer of the coarsest discriminator: one position alone would be normalized to zero.
    smallest = size / 2 ** (len(config.channels) + config.num_scales - 1)
    if smallest < 2:
        raise UserError(
            f"config.discriminator has too many layers or scales for patches of {size}: the last hidden "
            f"layer would have {smallest:g} positions a side, it needs 2"
        )


def _rate_schedule(rate, steps, decay_from):
    if not 0 <= decay_from <= 1:
        raise UserError(f"config.optimizer.decay_from is {decay_from}; it must lie in 0..1")
    begin = round(steps * decay_from)
    if begin >= steps:
        return rate
    return optax.schedules.linear_schedule(rate, 0.0, steps - begin, begin)
