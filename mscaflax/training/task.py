"""What the one training loop trains, and what every such task needs to begin."""

from collections.abc import Sequence
from typing import Any, Protocol

import jax

from mscaflax.data.pipeline import BatchIterator, pair_batches
from mscaflax.errors import UserError
from mscaflax.files import expanded
from mscaflax.nets.encoders import TapStatistics
from mscaflax.training.sharding import state_shardings
from mscaflax.training.state import measure_statistics

COUNTS = (
    "steps", "log_every", "health_every", "sample_every", "checkpoint_every", "keep_checkpoints",
    "statistics_photos",
)  # fmt: skip
OPTIONAL_COUNTS = ("health_every", "sample_every")  # 0: never


class Samples(Protocol):
    """Frozen validation examples, looked at again and again."""

    def health(self, state: Any, constants: Any) -> dict[str, jax.Array]:
        """Scalars on the device that tell whether the network learns what it should."""

    def grid(self, state: Any, constants: Any) -> Any:
        """The examples as a Pillow picture."""


class Task(Protocol):
    """What `mscaflax.training.loop.train` trains.

    A state is a flax dataclass with a field `step` and a class attribute `MODEL_FIELDS`, the names of the
    fields that inference needs.

    Attributes:
      settings: a ConfigDict with the keys COUNTS and batch_size (examples of a step, over all devices).
      mesh: the devices.
      unit: what an example is called in "UNIT per second".
      losses: metrics that are looked at after every step; one that is not finite ends the run.
      advice: what to do then.
    """

    settings: Any
    mesh: jax.sharding.Mesh
    unit: str
    losses: tuple[str, ...]
    advice: str

    def store_description(self, workdir: Any) -> None:
        """Writes what the run is into the workdir, or raises UserError if that holds another run."""

    def constants(self) -> Any:
        """What the step reads and never changes (pretrained weights), on the mesh."""

    def first_state(self, constants: Any) -> Any:
        """The state of step 0, on the mesh."""

    def abstract_state(self) -> Any:
        """Its ShapeDtypeStructs with their shardings."""

    def make_step(self) -> Any:
        """The jitted (state, constants, batch) → (state, metrics); the state is donated."""

    def batches(self, start_step: int) -> BatchIterator:
        """This process's part of the batches from `start_step` on."""

    def make_samples(self) -> Samples:
        """The frozen validation examples."""


def check_counts(settings: Any, name: str, keys: Sequence[str] = COUNTS) -> None:
    """Raises UserError unless each of `keys` in the group `name` is at least 1, or 0 where it may be."""
    for key in keys:
        least = 0 if key in OPTIONAL_COUNTS else 1
        if settings[key] < least:
            raise UserError(f"{name}.{key} is {settings[key]}; it must be at least {least}")


def with_absolute_data_dir(config: Any) -> Any:
    """The config as it is stored beside the checkpoints, to be read from any folder."""
    config = config.copy_and_resolve_references()
    if config.data.data_dir and "://" not in config.data.data_dir:
        config.data.data_dir = str(expanded(config.data.data_dir).absolute())
    return config


def measure_patches(
    vgg: Any, source: Any, *, count: int, size: int, num_classes: int, seed: int, side_range: Any
) -> TapStatistics:
    """TapStatistics of `count` training patches, in sixteens; the same in every process."""
    batch_size = min(count, 16)
    batches = pair_batches(
        source,
        size=size,
        num_classes=num_classes,
        batch_size=batch_size,
        seed=seed,
        side_range=tuple(side_range),
    )
    return measure_statistics(vgg, (next(batches)["image"] for _ in range(-(-count // batch_size))))


def born_on(mesh: jax.sharding.Mesh, init: Any, *arguments: Any) -> Any:
    """`init(*arguments)`, computed where the result lives: see `state_shardings`."""
    # Random draws are unrolled code, which runs once here and takes long to optimize.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    places = state_shardings(mesh, lambda: init(*arguments))
    return jax.jit(init, out_shardings=places, compiler_options=options)(*arguments)


def abstract_on(mesh: jax.sharding.Mesh, init: Any) -> Any:
    """The ShapeDtypeStructs of `init()` where they live: see `state_shardings`."""
    shapes, places = jax.eval_shape(init), state_shardings(mesh, init)
    if isinstance(places, jax.sharding.Sharding):
        places = jax.tree.map(lambda _: places, shapes)
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places
    )
