"""Batches of one size, split over devices: one compiled program serves all, and no number depends on them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mscaflax.training.sharding import batch_sharding, make_mesh, replicated

Advance = Callable[[int], None]


def ignore_progress(count: int) -> None:
    """An `Advance` for those who do not watch."""


class Batches:
    """How arrays of n entries go through networks: in batches of one size, the last one padded.

    Attributes:
      size: of every batch: the size asked for, rounded up to a multiple of the number of devices.
      mesh: the devices, which share each batch evenly.
    """

    def __init__(self, size: int, devices: Sequence[jax.Device] | None = None):
        """`size`: at least 1. `devices`: default: all of this process."""
        self.mesh = make_mesh(jax.local_devices() if devices is None else devices)
        self.size = -(-size // self.mesh.size) * self.mesh.size

    def replicate(self, params: Any) -> Any:
        """The tree `params` on every device; no copy where it is there already."""
        return jax.device_put(params, replicated(self.mesh))

    def program(self, function: Callable[..., Any], params: Any) -> Callable[..., Any]:
        """Binds parameters to a jitted function of batches.

        Args:
          function: jitted: (params, trees of arrays [size, ...]) to a tree of arrays.
          params: a tree, which is replicated.

        Returns:
          A function of the trees of arrays, which splits them over the devices. What it returns stays there.
        """
        params, sharding = self.replicate(params), batch_sharding(self.mesh)
        return lambda *batch: function(params, *jax.device_put(batch, sharding))

    def walk(self, *arrays: np.ndarray) -> Iterator[tuple[list[np.ndarray], int]]:
        """The batches of arrays [n, ...], padded by repeating the last entry, and their true lengths."""
        for start in range(0, len(arrays[0]), self.size):
            parts = [array[start : start + self.size] for array in arrays]
            real = len(parts[0])
            padding = (0, self.size - real)
            yield [np.pad(p, (padding, *((0, 0),) * (p.ndim - 1)), mode="edge") for p in parts], real

    def map(
        self, function: Callable[..., Any], *arrays: np.ndarray, advance: Advance = ignore_progress
    ) -> np.ndarray:
        """function(*batch), an array [size, ...], for all batches: its entries without the padding, [n, ...].

        `advance` is called with the number of entries after each batch.
        """
        found = []
        for batch, real in self.walk(*arrays):
            found.append(np.asarray(function(*batch))[:real])
            advance(real)
        return np.concatenate(found)
