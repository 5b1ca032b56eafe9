"""The synthesis network as a task of the training loop: pairs of patches, both networks, sample grids."""

import jax
import numpy as np

from mscaflax.data.datasets import open_dataset
from mscaflax.data.grids import Column, picture_grid
from mscaflax.data.pipeline import evaluation_pairs, pair_batches
from mscaflax.nets.vgg import load_vgg16
from mscaflax.training.description import store_description
from mscaflax.training.experiment import build_experiment
from mscaflax.training.health import attention_health
from mscaflax.training.processes import compiled_together
from mscaflax.training.sharding import (
    check_batch_size,
    gather,
    make_mesh,
    replicated,
    shard_batch,
    share_of_process,
)
from mscaflax.training.state import init_state, neutral_statistics
from mscaflax.training.step import example_keys, make_train_step, synthesize
from mscaflax.training.task import abstract_on, born_on, check_counts, measure_patches, with_absolute_data_dir

SAMPLES = 6


class SynthesisTask:
    """Trains the networks that a config describes on its dataset; a `Task`."""

    unit = "pairs"
    losses = ("loss/generator", "loss/discriminator")
    advice = (
        "begin again in another --workdir with lower config.optimizer.generator_rate and discriminator_rate"
    )

    def __init__(self, config):
        """Opens the dataset and builds the networks.

        Args:
          config: a ConfigDict like configs/base.py.

        Raises:
          UserError: no dataset, or a config that is wrong or does not fit it.
        """
        check_counts(config.train, "config.train")
        self.config, self.settings = config, config.train
        self.dataset = open_dataset(config.data.name, config.data.data_dir or None)
        self.experiment = build_experiment(config, self.dataset.classes.num_classes)
        self.mesh = make_mesh(fsdp=config.mesh.fsdp)
        check_batch_size(
            config.train.batch_size,
            self.mesh.size,
            config.data.both_directions,
            accumulate=config.train.accumulate,
        )
        self._source = self.dataset.source(config.data.train_split)
        self._val_source = self.dataset.source(config.data.val_split)

    def store_description(self, workdir):
        fingerprint = self.dataset.metadata.get("fingerprint")
        config = with_absolute_data_dir(self.config)
        store_description(workdir, config, self.dataset.classes, fingerprint)

    def constants(self):
        return jax.device_put(load_vgg16(), replicated(self.mesh))

    def first_state(self, constants):
        config = self.config
        statistics = measure_patches(
            constants,
            self._source,
            count=config.train.statistics_photos,
            size=config.data.size,
            num_classes=self.dataset.classes.num_classes,
            seed=config.seed,
            side_range=config.data.side_range,
        )
        return born_on(self.mesh, lambda statistics: init_state(self.experiment, statistics), statistics)

    def abstract_state(self):
        return abstract_on(self.mesh, lambda: init_state(self.experiment, neutral_statistics()))

    def make_step(self):
        return make_train_step(self.experiment, self.mesh)

    def batches(self, start_step):
        config = self.config
        return pair_batches(
            self._source,
            size=config.data.size,
            num_classes=self.dataset.classes.num_classes,
            batch_size=config.train.batch_size,
            seed=config.seed,
            start_step=start_step,
            self_share=config.data.self_share,
            side_range=tuple(config.data.side_range),
            flip=config.data.flip,
            both_directions=config.data.both_directions,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def make_samples(self):
        return SynthesisSamples(
            self.config, self.experiment, self.mesh, self._val_source, self.dataset.classes
        )


class SynthesisSamples:
    """Frozen validation pairs, synthesized again and again: sample grids and attention health."""

    def __init__(self, config, experiment, mesh, source, classes):
        # At least one sample per device, and the same number on each.
        devices = mesh.size
        count = -(-SAMPLES // devices) * devices
        pairs = evaluation_pairs(
            source,
            count=count,
            size=config.data.size,
            num_classes=classes.num_classes,
            seed=config.seed,
            side_range=tuple(config.data.side_range),
        )
        self._classes, self._pairs = classes, pairs
        keys = ("label", "exemplar", "exemplar_label")
        batch = {key: pairs[key] for key in keys}
        # The same samples with the photos handed on by one: what does the exemplar change?
        swapped = {"label": pairs["label"]} | {key: np.roll(pairs[key], -1, axis=0) for key in keys[1:]}
        self._batch, self._swapped = (shard_batch(share_of_process(b), mesh) for b in (batch, swapped))

        def run(params, statistics, vgg, batch):
            noise = example_keys(jax.random.key(0), count)
            synthesis = synthesize(
                experiment.network,
                gather(params, mesh),
                statistics,
                vgg,
                batch,
                noise,
                None,
                experiment.dtype,
            )
            return synthesis.image, attention_health(synthesis.alignments)

        # One program for both: compiling takes longer than running.
        self._run = compiled_together(jax.jit(run, out_shardings=replicated(mesh)), "the samples' program")

    def health(self, state, constants):
        """attention_health of the moving average on the samples, on the device."""
        return self._run(state.ema, state.statistics, constants, self._batch)[1]

    def grid(self, state, constants):
        """The samples as a Pillow picture: label map, target, exemplar, output, other exemplar, output."""
        output, other = (
            np.asarray(self._run(state.ema, state.statistics, constants, batch)[0])
            for batch in (self._batch, self._swapped)
        )
        pairs = {key: value[:SAMPLES] for key, value in self._pairs.items()}
        return picture_grid(
            [
                Column("label map", self._classes.colorize(pairs["label"]), flat=True),
                Column("target", pairs["image"]),
                Column("exemplar", pairs["exemplar"]),
                Column("output", output[:SAMPLES]),
                Column("another exemplar", np.roll(self._pairs["exemplar"], -1, axis=0)[:SAMPLES]),
                Column("its output", other[:SAMPLES]),
            ]
        )
