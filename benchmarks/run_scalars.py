"""The numbers in a run's TensorBoard events."""

from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util


def read_scalars(workdir):
    """{name: (steps, values, wall times)}, in the order of the steps; a resumed run has several files."""
    rows = {}
    for folder in sorted({file.parent for file in (Path(workdir) / "tensorboard").rglob("events.out.*")}):
        events = EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0})
        events.Reload()
        for name in events.Tags()["tensors"]:
            for event in events.Tensors(name):
                value = tensor_util.make_ndarray(event.tensor_proto)
                if value.ndim == 0 and value.dtype.kind == "f":
                    rows.setdefault(name, {})[event.step] = (float(value), event.wall_time)
        for name in events.Tags()["scalars"]:
            for event in events.Scalars(name):
                rows.setdefault(name, {})[event.step] = (event.value, event.wall_time)
    return {
        name: tuple(
            np.array(column) for column in zip(*((s, *v) for s, v in sorted(values.items())), strict=True)
        )
        for name, values in rows.items()
    }
