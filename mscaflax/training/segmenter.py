"""The segmenter, label maps from images: a task of the training loop, and what a workdir holds once trained.

A workdir of `mscaflax train` keeps its segmenters below `segmenter/`, one folder `seed<N>` each, with the
files of any run (config, classes, checkpoints, TensorBoard events, samples) and, once trained, `scores.json`.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from mscaflax.data.classes import ClassTable
from mscaflax.data.datasets import open_dataset
from mscaflax.data.grids import Column, picture_grid
from mscaflax.data.pipeline import evaluation_pairs, pair_batches
from mscaflax.errors import UserError
from mscaflax.files import expanded
from mscaflax.nets.vgg import load_vgg16
from mscaflax.training.checkpoint import restore_model
from mscaflax.training.description import load_description, store_description
from mscaflax.training.segmenter_step import (
    build_segmenter,
    class_logits,
    init_segmenter_state,
    label_loss,
    make_segmenter_step,
)
from mscaflax.training.sharding import (
    batch_sharding,
    check_batch_size,
    make_mesh,
    replicated,
    shard_batch,
    share_of_process,
)
from mscaflax.training.state import neutral_statistics
from mscaflax.training.task import (
    COUNTS,
    abstract_on,
    born_on,
    check_counts,
    measure_patches,
    with_absolute_data_dir,
)

SCORES = "scores.json"
_SAMPLES = 6
_HEALTH_PATCHES = 32
_CHUNK = 16  # images of one pass of `predict`
# How a batch may be split, for `check_batch_size` and `split_cpu`.
BATCH = {
    "even": True,
    "key": "config.segmenter.batch_size (--batch_size)",
    "why": "two patches of each photo",
}


class SegmenterTask:
    """Trains the segmenter that `config.segmenter` describes on the dataset of `config.data`; a `Task`."""

    unit = "patches"
    losses = ("loss/cross_entropy",)
    advice = "begin again with another --seed and a lower --rate"

    def __init__(self, config):
        """Opens the dataset and builds the network.

        Args:
          config: a ConfigDict like configs/base.py.

        Raises:
          UserError: no dataset, or a config that is wrong or does not fit it.
        """
        check_counts(config.segmenter, "config.segmenter", (*COUNTS, "val_pairs"))
        self.config, self.settings = config, config.segmenter
        self.dataset = open_dataset(config.data.name, config.data.data_dir or None)
        self.experiment = build_segmenter(config, self.dataset.classes.num_classes)
        self.mesh = make_mesh()
        check_batch_size(config.segmenter.batch_size, self.mesh.size, **BATCH)
        self._source = self.dataset.source(config.data.train_split)
        self.val_source = self.dataset.source(config.data.val_split)

    def store_description(self, workdir):
        free = [group for group in self.config if group not in ("data", "segmenter")] + ["data.data_dir"]
        free += [f"segmenter.{key}" for key in COUNTS if key not in ("steps", "statistics_photos")]
        fingerprint = self.dataset.metadata.get("fingerprint")
        remedy = "choose another --seed"
        config = with_absolute_data_dir(self.config)
        store_description(workdir, config, self.dataset.classes, fingerprint, free, remedy)

    def constants(self):
        return jax.device_put(load_vgg16(), replicated(self.mesh))

    def first_state(self, constants):
        statistics = measure_patches(
            constants,
            self._source,
            count=self.settings.statistics_photos,
            size=self.config.data.size,
            num_classes=self.dataset.classes.num_classes,
            seed=self.settings.seed,
            side_range=self.settings.side_range,
        )
        return born_on(
            self.mesh, lambda statistics: init_segmenter_state(self.experiment, statistics), statistics
        )

    def abstract_state(self):
        return abstract_on(self.mesh, lambda: init_segmenter_state(self.experiment, neutral_statistics()))

    def make_step(self):
        whole = replicated(self.mesh)
        return make_segmenter_step(self.experiment, whole, batch_sharding(self.mesh), whole)

    def batches(self, start_step):
        return pair_batches(
            self._source,
            size=self.config.data.size,
            num_classes=self.dataset.classes.num_classes,
            batch_size=self.settings.batch_size // 2,
            seed=self.settings.seed,
            start_step=start_step,
            self_share=0.0,
            side_range=tuple(self.settings.side_range),
            flip=True,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def make_samples(self):
        return _SegmenterSamples(self)


class _SegmenterSamples:
    """Frozen validation patches, segmented again and again."""

    def __init__(self, task):
        devices = task.mesh.size
        data, self._classes = task.config.data, task.dataset.classes
        self._patches = evaluation_pairs(
            task.val_source,
            count=-(-_HEALTH_PATCHES // devices) * devices,
            size=data.size,
            num_classes=self._classes.num_classes,
            seed=task.config.seed,
            side_range=tuple(data.side_range),
        )
        batch = {key: self._patches[key] for key in ("image", "label")}
        self._batch = shard_batch(share_of_process(batch), task.mesh)

        def run(state, vgg, batch):
            logits = class_logits(task.experiment, state.params, state.statistics, vgg, batch["image"])
            loss, accuracy = label_loss(logits, batch["label"])
            return logits.argmax(axis=-1), {"val/cross_entropy": loss, "val/pixel_accuracy": accuracy}

        self._run = jax.jit(run, out_shardings=replicated(task.mesh))

    def health(self, state, constants):
        """Cross entropy and accuracy on the patches, on the device."""
        return self._run(state, constants, self._batch)[1]

    def grid(self, state, constants):
        """The first patches as a Pillow picture, see `segmentation_grid`."""
        predicted = np.asarray(self._run(state, constants, self._batch)[0])[:_SAMPLES]
        image, label = (self._patches[key][:_SAMPLES] for key in ("image", "label"))
        return segmentation_grid(self._classes, image, label, predicted)


def segmentation_grid(classes, images, labels, predicted):
    """A Pillow picture, one row per image: photo, true map, predicted map."""
    return picture_grid(
        [
            Column("photo", images),
            Column("true map", classes.colorize(labels), flat=True),
            Column("predicted map", classes.colorize(predicted), flat=True),
        ]
    )


@dataclass(frozen=True)
class Segmenter:
    """A trained segmenter.

    Attributes:
      classes: names and palette of its C classes.
      seed: of its training.
      step: training steps behind the parameters.
      size: side of the patches that it was trained on: it knows photos best whose objects have the scale that
        they have in patches, so shrink a photo until a patch of `config.data.side_range` has about this side.
      scores: of the validation patches: pixel_accuracy, mean_iou, class_iou by name (None: the class does not
        occur) and what they were measured on; None before they are.
      experiment, params, statistics, vgg: the network and its weights.
    """

    classes: ClassTable
    seed: int
    step: int
    size: int
    scores: dict[str, Any] | None
    experiment: Any = field(repr=False)
    params: Any = field(repr=False)
    statistics: Any = field(repr=False)
    vgg: Any = field(repr=False)
    _program: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        experiment = self.experiment

        def program(params, statistics, vgg, images):
            return class_logits(experiment, params, statistics, vgg, images).argmax(axis=-1)

        object.__setattr__(self, "_program", jax.jit(program))

    def predict(self, images):
        """The most likely class of each pixel.

        Args:
          images: [b, h, w, 3] float in [-1, 1]; h and w at least 16. Each new size is compiled once.

        Returns:
          int32 numpy array [b, h, w] in 0..C-1; what is unlabelled has the most likely class too.

        Raises:
          ValueError: images of another shape, or no floats.
        """
        images = np.asarray(images)
        if not np.issubdtype(images.dtype, np.floating):
            raise ValueError(f"images must be floats in [-1, 1], got {images.dtype}")
        if images.ndim != 4 or images.shape[-1] != 3 or min(images.shape[1:3]) < 16:
            raise ValueError(f"images must be [b, h, w, 3] with h and w at least 16, got {images.shape}")
        maps = np.empty(images.shape[:3], np.int32)
        chunk = min(_CHUNK, len(images))
        for begin in range(0, len(images), chunk or 1):
            part = images[begin : begin + chunk].astype(np.float32)
            # The last part is filled up, so that it needs no program of its own.
            filled = np.concatenate([part, np.zeros((chunk - len(part), *part.shape[1:]), np.float32)])
            found = self._program(self.params, self.statistics, self.vgg, filled)
            maps[begin : begin + chunk] = np.asarray(found)[: len(part)]
        return maps


def segmenter_folder(workdir, seed):
    """Where `workdir` keeps its segmenter of this seed."""
    return expanded(workdir) / "segmenter" / f"seed{seed}"


def load_segmenter(workdir, seed=None, vgg=None):
    """The trained and scored Segmenter that lies beside a model.

    Args:
      workdir: a folder of `mscaflax train`.
      seed: which segmenter; None for the seed of the workdir's config (0 unless set).
      vgg: the VGG-16 parameters, if the caller has them already.

    Raises:
      UserError: the workdir holds no model; or no segmenter of this seed, or one whose training or scoring
        did not end: the message names the command that makes it.
    """
    config, _ = load_description(workdir)
    chosen = config.segmenter.seed if seed is None else seed
    folder = segmenter_folder(workdir, chosen)
    command = f"mscaflax segmenter --workdir={workdir}{'' if seed is None else f' --seed={seed}'}"
    try:
        scores = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{workdir} holds no segmenter of seed {chosen}: make it with `{command}`") from None
    except (ValueError, NotADirectoryError):
        raise UserError(f"{folder / SCORES} is damaged: write it again with `{command}`") from None
    return restore_segmenter(folder, scores, vgg)


def find_segmenter(workdir, seed=None, vgg=None):
    """As `load_segmenter`, but None where the workdir of a model holds no trained and scored segmenter."""
    config, _ = load_description(workdir)
    folder = segmenter_folder(workdir, config.segmenter.seed if seed is None else seed)
    return load_segmenter(workdir, seed, vgg) if (folder / SCORES).exists() else None


def restore_segmenter(folder, scores=None, vgg=None):
    """The Segmenter of the last checkpoint in a segmenter's own folder, with these scores.

    Raises:
      UserError: there is none.
    """
    config, classes = load_description(folder)
    experiment = build_segmenter(config, classes.num_classes)
    state = jax.eval_shape(lambda: init_segmenter_state(experiment, neutral_statistics()))
    abstract = {name: getattr(state, name) for name in state.MODEL_FIELDS}
    step, restored = restore_model(folder, abstract_model=abstract)
    return Segmenter(
        classes=classes,
        seed=config.segmenter.seed,
        step=step,
        size=config.data.size,
        scores=scores,
        experiment=experiment,
        vgg=jax.device_put(load_vgg16() if vgg is None else vgg, jax.local_devices()[0]),
        **restored,
    )
