"""A trained model, ready to synthesize."""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from mscaflax.data.classes import ClassTable
from mscaflax.nets.generator import SynthesisNetwork
from mscaflax.nets.vgg import load_vgg16, vgg16_taps
from mscaflax.training.checkpoint import restore_model
from mscaflax.training.description import load_description
from mscaflax.training.experiment import build_experiment
from mscaflax.training.sharding import BATCH_AXES, batch_sharding, replicated
from mscaflax.training.state import init_state, neutral_statistics
from mscaflax.training.step import synthesize

# Images that each device of a mesh takes at a time, whatever the batch. On the CPU, products round otherwise
# at each place of a batch.
CHUNK_ON_CPU, CHUNK = 1, 4


def chunk_of(mesh):
    """How many images each device of a mesh takes at a time."""
    return CHUNK_ON_CPU if mesh.devices.flat[0].platform == "cpu" else CHUNK


def forward(network, params, statistics, vgg, batch, seed, valid=None):
    """The Synthesis that a seed gives: what a Model computes, to be traced.

    Args:
      network: the SynthesisNetwork.
      params: its parameters.
      statistics: TapStatistics.
      vgg: the VGG-16 parameters.
      batch: label [b, h, w] and exemplar_label [b, h', w'] int32 in 0..C, exemplar [b, h', w', 3] float32 in
        [-1, 1].
      seed: uint32 scalar.
      valid: None or [b, h, w] bool, False where the label map is padding.
    """
    # Every image of the call has the same key, so that how requests are batched changes nothing.
    keys = jnp.broadcast_to(jax.random.key(seed), (batch["label"].shape[0],))
    return synthesize(network, params, statistics, vgg, batch, keys, valid, network.dtype)


@dataclass(frozen=True)
class Model:
    """What inference needs.

    Attributes:
      config: the run's config.
      classes: names and palette of its C classes.
      step: training steps behind the parameters.
      network: the SynthesisNetwork.
      params: the moving average of its parameters.
      statistics: TapStatistics.
      vgg: the VGG-16 parameters.
      mesh: the devices that share each batch; None for the one that holds the parameters.
    """

    config: Any
    classes: ClassTable
    step: int
    network: SynthesisNetwork
    params: Any
    statistics: Any
    vgg: Any
    mesh: Any = None
    _image: Any = field(init=False, repr=False, compare=False)
    _align: Any = field(init=False, repr=False, compare=False)
    _decode: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        network = self.network

        # What a program returns cannot be freed while it runs: the maps of all scales, for a picture alone.
        def image(*arguments):
            return forward(network, *arguments).image

        if self.mesh is not None:
            image = _on_each_device(image, self.mesh)
        object.__setattr__(self, "_image", jax.jit(image))

        def align(params, statistics, vgg, batch, valid):
            # Without products as in `mscaflax.training.step.synthesize`, so that both round alike.
            taps = vgg16_taps(vgg, batch["exemplar"], dtype=network.dtype, products=False)
            return network.apply(
                {"params": params}, batch["label"], batch["exemplar"], batch["exemplar_label"], taps,
                statistics, valid, method="align_exemplar",
            )  # fmt: skip

        object.__setattr__(self, "_align", jax.jit(align))

        def decode(params, alignments, label, seed, valid):
            keys = jnp.broadcast_to(jax.random.key(seed), (label.shape[0],))
            return network.apply({"params": params}, alignments, label, keys, valid, method="decode_layout")

        object.__setattr__(self, "_decode", jax.jit(decode))

    def over(self, mesh):
        """The same model on all devices of a mesh.

        `generate` then computes the same for every number of devices and every way to cut a set of requests
        into batches; what is left are roundings of parallel threads.
        """
        copies = {name: getattr(self, name) for name in ("params", "statistics", "vgg")}
        return replace(self, mesh=mesh, **jax.device_put(copies, replicated(mesh)))

    def align(self, label, exemplar, exemplar_label, valid=None):
        """The exemplars' features laid out as the targets: the first half of `generate`.

        Args: as `generate`'s.

        Returns:
          A tuple of one Alignment (or None, where the scale is off) per scale, on the device.
        """
        batch = {
            "label": np.asarray(label, np.int32),
            "exemplar": np.asarray(exemplar, np.float32),
            "exemplar_label": np.asarray(exemplar_label, np.int32),
        }
        return self._align(self.params, self.statistics, self.vgg, batch, valid)

    def decode(self, alignments, label, seed=0, valid=None):
        """Pictures from Alignments, which may be changed: the second half of `generate`.

        Args:
          alignments: as of `align`; of each, `features`, and for `decoupled` modulation `assignment` and
            `values`, count.
          label, seed, valid: as `generate`'s.

        Returns:
          [b, h, w, 3] float32 numpy array in [-1, 1].
        """
        images = self._decode(self.params, alignments, np.asarray(label, np.int32), np.uint32(seed), valid)
        return np.asarray(images)

    def generate(self, label, exemplar, exemplar_label, seed=0, valid=None):
        """Synthesizes a batch.

        Args:
          label: [b, h, w] int in 0..C; h and w multiples of `network.size_multiple`.
          exemplar: [b, h', w', 3] float in [-1, 1]; h' and w' likewise.
          exemplar_label: [b, h', w'] int in 0..C.
          seed: of the noise maps, 0 .. 2^32-1; the same seed gives the same picture in any batch, but for
            rounding; on the CPU, `over` a mesh, bit for bit.
          valid: None or [b, h, w] bool, False where the label map is padding.

        Returns:
          [b, h, w, 3] float32 numpy array in [-1, 1].
        """
        arrays = [label, exemplar, exemplar_label, *([] if valid is None else [valid])]
        if self.mesh is None:
            return np.asarray(self._call(self._image, *arrays[:3], seed, valid))
        # One program for any batch: one for another number of images rounds otherwise, and a rounding can
        # flip an 8-bit level.
        together = self.mesh.size * chunk_of(self.mesh)
        extra = -len(label) % together
        arrays = [np.concatenate([x, np.repeat(x[-1:], extra, axis=0)]) for x in map(np.asarray, arrays)]
        parts = zip(*(np.split(x, len(x) // together) for x in arrays), strict=True)
        images = [self._call(self._image, *part[:3], seed, *part[3:]) for part in parts]
        return np.concatenate(images)[: len(label)]

    def _call(self, program, label, exemplar, exemplar_label, seed, valid=None):
        batch = {
            "label": np.asarray(label, np.int32),
            "exemplar": np.asarray(exemplar, np.float32),
            "exemplar_label": np.asarray(exemplar_label, np.int32),
        }
        if self.mesh is not None:
            batch, valid = jax.device_put((batch, valid), batch_sharding(self.mesh))
        return program(self.params, self.statistics, self.vgg, batch, np.uint32(seed), valid)


def _on_each_device(function, mesh):
    """Splits the batch of a forward function over a mesh."""
    split, whole = P(BATCH_AXES), P()
    return jax.shard_map(
        function, mesh=mesh, in_specs=(whole, whole, whole, split, whole, split), out_specs=split
    )


def load_model(workdir, step=None):
    """The Model of a workdir at a step (None: the last).

    Raises:
      UserError: the workdir holds no model, or none of this step.
    """
    config, classes = load_description(workdir)
    experiment = build_experiment(config, classes.num_classes)
    state = jax.eval_shape(lambda: init_state(experiment, neutral_statistics()))
    step, restored = restore_model(workdir, step, {"ema": state.ema, "statistics": state.statistics})
    return Model(
        config=config,
        classes=classes,
        step=step,
        network=experiment.network,
        params=restored["ema"],
        statistics=restored["statistics"],
        vgg=jax.device_put(load_vgg16(), jax.local_devices()[0]),
    )
