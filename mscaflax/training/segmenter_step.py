"""The segmenter's state and train step: cross entropy of label maps over randomly coloured patches."""

from dataclasses import dataclass
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from mscaflax.errors import UserError
from mscaflax.nets.encoders import TapStatistics
from mscaflax.nets.segmenter import SegmentationDecoder
from mscaflax.nets.vgg import TAP_CHANNELS, vgg16_taps
from mscaflax.training.experiment import DTYPES
from mscaflax.training.sharding import jit_step
from mscaflax.training.state import stream_key
from mscaflax.training.step import example_keys


@dataclass(frozen=True)
class SegmenterExperiment:
    """Everything the step needs but the state, the VGG weights and the data; hashable parts only.

    Attributes:
      network: the decoder.
      optimizer: optax transformation.
      jitter: strength of the random colours, see `jitter_colours`.
      seed: root of every random key.
      dtype: compute dtype of the frozen VGG.
    """

    network: SegmentationDecoder
    optimizer: optax.GradientTransformation
    jitter: float
    seed: int
    dtype: Any


@flax.struct.dataclass
class SegmenterState:
    """All that a run carries from step to step.

    Attributes:
      step: int32 scalar, steps done.
      params: of the decoder.
      optimizer: optax state.
      statistics: TapStatistics of the training patches.
    """

    MODEL_FIELDS = ("params", "statistics")  # what inference needs

    step: Any
    params: Any
    optimizer: Any
    statistics: TapStatistics


def build_segmenter(config, num_classes):
    """The SegmenterExperiment that `config.segmenter` (and `config.model.dtype`) describes.

    Raises:
      UserError: a value that is out of range.
    """
    settings = config.segmenter
    if config.model.dtype not in DTYPES:
        raise UserError(f"config.model.dtype is {config.model.dtype!r}; choose one of {', '.join(DTYPES)}")
    if len(settings.channels) != len(TAP_CHANNELS) or min(settings.channels) < 1:
        raise UserError(
            f"config.segmenter.channels is {tuple(settings.channels)}; give {len(TAP_CHANNELS)} positive "
            "numbers, one per scale, finest first"
        )
    if not 0 <= settings.jitter <= 1:
        raise UserError(f"config.segmenter.jitter is {settings.jitter}; it must lie in 0..1")
    schedule = optax.schedules.cosine_decay_schedule(settings.rate, settings.steps)
    dtype = DTYPES[config.model.dtype]
    return SegmenterExperiment(
        network=SegmentationDecoder(num_classes, tuple(settings.channels), dtype),
        optimizer=optax.adamw(schedule, weight_decay=settings.weight_decay),
        jitter=settings.jitter,
        seed=settings.seed,
        dtype=dtype,
    )


def init_segmenter_state(experiment, statistics):
    """The state of step 0; a pure function of the experiment's seed and the statistics."""
    taps = [jnp.zeros((1, 32 >> i, 32 >> i, c)) for i, c in enumerate(TAP_CHANNELS)]
    params = experiment.network.init(stream_key(experiment.seed, "init", 0), taps, statistics)["params"]
    return SegmenterState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer=experiment.optimizer.init(params),
        statistics=statistics,
    )


def jitter_colours(images, keys, strength):
    """Varies contrast, saturation and colour of each image, so that a class is not known by its tint alone.

    Args:
      images: [b, h, w, 3] in [-1, 1].
      keys: [b] random keys.
      strength: contrast and saturation are scaled by factors in 1 ± strength, and each of red, green and blue
        is moved by up to strength / 2; 0 changes nothing.

    Returns:
      [b, h, w, 3] in [-1, 1].
    """

    def one(image, key):
        numbers = strength * jax.random.uniform(key, (5,), minval=-1.0, maxval=1.0)
        gray = image.mean(axis=-1, keepdims=True)
        image = gray + (image - gray) * (1 + numbers[0])
        return image * (1 + numbers[1]) + numbers[2:].reshape(1, 1, 3) / 2

    return jnp.clip(jax.vmap(one)(images, keys), -1, 1) if strength else images


def both_patches(batch):
    """(images [2b, h, w, 3], labels [2b, h, w]): the two patches of each pair, side by side.

    Side by side, not one batch after the other, so that a sharded batch stays where it is.
    """

    def interleave(first, second):
        return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])

    return (
        interleave(batch["image"], batch["exemplar"]),
        interleave(batch["label"], batch["exemplar_label"]),
    )


def label_loss(logits, labels):
    """Mean cross entropy and accuracy over the labelled pixels; zero where there are none.

    Args:
      logits: [b, h, w, C].
      labels: [b, h, w] int in 0..C; C = unlabelled, without weight.

    Returns:
      (cross entropy, share of pixels whose largest logit is right), float32 scalars.
    """
    num_classes = logits.shape[-1]
    weight = (labels < num_classes).astype(jnp.float32)
    count = jnp.maximum(weight.sum(), 1.0)
    known = jnp.minimum(labels, num_classes - 1)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), known)
    right = (logits.argmax(axis=-1) == labels).astype(jnp.float32)
    return (losses * weight).sum() / count, (right * weight).sum() / count


def segmenter_step(experiment, state, vgg, batch):
    """One update from one batch of pairs, whose two patches are two examples.

    Args:
      experiment: SegmenterExperiment.
      state: SegmenterState.
      vgg: the VGG-16 parameters.
      batch: the batch contract: image, exemplar [b, h, w, 3] float32 in [-1, 1]; label, exemplar_label
        [b, h, w] int32 in 0..C.

    Returns:
      (the next SegmenterState, metrics: a dict of float32 scalars).
    """
    images, labels = both_patches(batch)
    keys = example_keys(stream_key(experiment.seed, "jitter", state.step), images.shape[0])
    taps = vgg16_taps(vgg, jitter_colours(images, keys, experiment.jitter), dtype=experiment.dtype)

    def loss(params):
        return label_loss(experiment.network.apply({"params": params}, taps, state.statistics), labels)

    (value, accuracy), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, optimizer = experiment.optimizer.update(gradients, state.optimizer, state.params)
    metrics = {"loss/cross_entropy": value, "train/pixel_accuracy": accuracy}
    for kind, tree in (("gradients", gradients), ("parameters", state.params), ("updates", updates)):
        metrics[f"norm/segmenter_{kind}"] = optax.tree.norm(tree)
    params = optax.apply_updates(state.params, updates)
    return state.replace(step=state.step + 1, params=params, optimizer=optimizer), metrics


def make_segmenter_step(experiment, state_shardings, batch_sharding, replicated):
    """Jits `segmenter_step` for a mesh, see `jit_step`."""

    def step(state, vgg, batch):
        return segmenter_step(experiment, state, vgg, batch)

    return jit_step(step, state_shardings, batch_sharding, replicated)


def class_logits(experiment, params, statistics, vgg, images):
    """[b, h, w, 3] images in [-1, 1] → [b, h, w, C] float32."""
    taps = vgg16_taps(vgg, images, dtype=experiment.dtype)
    return experiment.network.apply({"params": params}, taps, statistics)
