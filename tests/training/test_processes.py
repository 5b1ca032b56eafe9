"""Real processes: what one stopped, another one goes on with, exactly."""

import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest


def train(workdir, arguments, steps):
    # As users run it: with all optimizations, and nothing compiled by another process.
    apart = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    environment = {key: value for key, value in os.environ.items() if key not in apart}
    command = [sys.executable, "-m", "mscaflax", "train", f"--workdir={workdir}", *arguments]
    # Only the step: health and samples have programs of their own, which take as long to compile.
    command += ["--config.train.health_every=0", "--config.train.sample_every=0"]
    command += ["--config.train.batch_size=4", "--cpu_devices=2", f"--config.train.steps={steps}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_a_run_in_two_processes_equals_one_in_one_bit_for_bit(light_arguments, tmp_path, read_checkpoint):
    train(tmp_path / "unbroken", light_arguments, 4)
    # As if it had been killed after the second step; what follows is compiled anew.
    shutil.copytree(tmp_path / "unbroken", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken/checkpoints/4")
    # From the start again, it would end alike.
    assert "resuming at step 2" in train(tmp_path / "broken", light_arguments, 4)
    broken, unbroken = (read_checkpoint(tmp_path / name, 4) for name in ("broken", "unbroken"))
    assert int(unbroken["training"]["step"]) == 4
    assert jax.tree.structure(broken) == jax.tree.structure(unbroken)
    for a, b in zip(jax.tree.leaves(broken), jax.tree.leaves(unbroken), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
