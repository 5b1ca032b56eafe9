import argparse
import importlib.util
import math
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mscaflax.config import load_config
from mscaflax.data.scenes import CLASS_NAMES

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "run_estimate.py"
_spec = importlib.util.spec_from_file_location("run_estimate", SCRIPT)
run_estimate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(run_estimate)

OPTIONS = argparse.Namespace(devices=64, devices_per_host=4, share=0.5, photo_kb=100.0, disk=1e6)


@pytest.fixture(scope="module")
def config():
    return load_config(["--config=tiny", "--config.train.steps=1000", "--config.train.batch_size=64"])


def test_the_examples_of_the_config_at_the_speed_of_the_slower_peak(config):
    report = {"batch_size": 16, "devices": 8, "compute_seconds": 0.1, "memory_seconds": 0.2, "num_classes": 3}
    found = run_estimate.estimate(report, config, OPTIONS)
    assert (found["hosts"], found["batch"], found["steps"]) == (16, 128, 500)
    assert found["hours at the chips' peaks"] == pytest.approx(500 * 0.2 / 3600)
    assert found["hours at 50% of them"] == pytest.approx(500 * 0.4 / 3600)
    # 128 examples in 0.4 s on 16 hosts, two of each photo.
    assert found["photos per second and host"] == pytest.approx(10)
    assert found["MB read per second and host"] == pytest.approx(1)
    assert found["seconds to write it"] == pytest.approx(found["checkpoint, GB"] * 1e3)


def test_the_bytes_are_those_of_a_checkpoint(tiny_run, tiny_arguments):
    written = 0
    with ocp.StandardCheckpointer() as checkpointer:
        for item in ("model", "training"):
            found = checkpointer.metadata(tiny_run / "checkpoints/4" / item).item_metadata.tree
            written += sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(found))
    assert run_estimate.state_bytes(load_config(tiny_arguments), len(CLASS_NAMES)) == written
