"""TPU chips and the slices made of them: what a program that was only compiled is held against.

The peaks are those that Google publishes, a page per chip: https://cloud.google.com/tpu/docs/v4, …/v5e,
…/v5p, …/v6e and …/tpu7x ("key specifications": peak compute in bf16, HBM capacity and bandwidth).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mscaflax.errors import UserError


@dataclass(frozen=True)
class Chip:
    """Published peaks of one chip.

    Attributes:
      flops: floating point operations per second in bfloat16.
      hbm_bytes: memory.
      bandwidth: bytes per second between memory and chip.
      pod: chips of the largest slice.
      dimensions: of the torus that a slice is cut from, 2 or 3.
      devices: how many JAX devices one chip is.
      options: what libtpu must be told beside the topology's name.
    """

    flops: float
    hbm_bytes: int
    bandwidth: float
    pod: int
    dimensions: int
    devices: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


_GIB = 2**30

CHIPS = {
    # Without `megacore`, libtpu makes two devices of a v4 chip; the machines that are rented out have one.
    "v4": Chip(275e12, 32 * _GIB, 1228e9, 4096, 3, options={"chip_config_name": "megacore"}),
    "v5e": Chip(197e12, 16 * _GIB, 819e9, 256, 2),
    "v5p": Chip(459e12, 95 * _GIB, 2765e9, 8960, 3),
    "v6e": Chip(918e12, 32 * _GIB, 1638e9, 256, 2),
    "tpu7x": Chip(2307e12, 192 * _GIB, 7380e9, 9216, 3, devices=2),
}

_EXAMPLE = {2: "4x4", 3: "2x2x1"}


@dataclass(frozen=True)
class Slice:
    """A slice of a TPU pod.

    Attributes:
      kind: a key of CHIPS.
      shape: chips along each axis.
    """

    kind: str
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def name(self) -> str:
        """As libtpu writes it, e.g. `v5e:4x4`."""
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"

    @property
    def devices(self) -> int:
        """JAX devices of the whole slice."""
        return math.prod(self.shape) * self.chip.devices

    @property
    def device_flops(self) -> float:
        return self.chip.flops / self.chip.devices

    @property
    def device_hbm_bytes(self) -> int:
        return self.chip.hbm_bytes // self.chip.devices

    @property
    def device_bandwidth(self) -> float:
        return self.chip.bandwidth / self.chip.devices


def parse_topology(name: str) -> Slice:
    """The Slice that a name like `v5e:4x4` or `v5p:2x2x4` means.

    Raises:
      UserError: an unknown chip, or a shape that is not known here: of whole hosts of 2×2 chips, up to a pod.
    """
    kind, _, shape = name.partition(":")
    if kind not in CHIPS:
        raise UserError(f"--topology={name}: no chip {kind!r}; give one of {', '.join(CHIPS)}, as in v5e:4x4")
    dimensions = CHIPS[kind].dimensions
    example = f"{kind}:{_EXAMPLE[dimensions]}"
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape) or shape.count("x") + 1 != dimensions:
        raise UserError(f"--topology={name}: give {kind} chips along {dimensions} axes, as in {example}")
    sides = tuple(map(int, shape.split("x")))
    if any(side % 2 for side in sides[:2]):
        raise UserError(
            f"--topology={name}: whole hosts of 2x2 chips are asked for here: give even sides first, "
            f"as in {example}"
        )
    if math.prod(sides) > CHIPS[kind].pod:
        raise UserError(f"--topology={name}: a pod of {kind} has {CHIPS[kind].pod} chips, give fewer")
    return Slice(kind, sides)
