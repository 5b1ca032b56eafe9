"""Reading back what a run writes."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util


def _read_events(workdir: Path) -> dict[str, dict[int, Any]]:
    events: dict[str, dict[int, Any]] = defaultdict(dict)
    for file in sorted((workdir / "tensorboard").iterdir()):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                events[value.tag][event.step] = tensor_util.make_ndarray(value.tensor)
    return dict(events)


def _read_checkpoint(workdir: Path, step: int) -> dict[str, Any]:
    folder = workdir / "checkpoints" / str(step)
    # Of a run on other devices too.
    here = ocp.args.StandardRestore(fallback_sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        return {item: checkpointer.restore(folder / item, args=here) for item in ("model", "training")}


@pytest.fixture(scope="session")
def read_events() -> Callable[[Path], dict[str, dict[int, np.ndarray]]]:
    """`read_events(workdir)[tag][step]`: what TensorBoard shows."""
    return _read_events


@pytest.fixture(scope="session")
def read_checkpoint() -> Callable[[Path, int], dict[str, Any]]:
    """`read_checkpoint(workdir, step)`: every array of a checkpoint, as it lies on disk."""
    return _read_checkpoint
