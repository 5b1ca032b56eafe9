"""Given the same outputs, no number depends on the batches or the devices of the networks that judge."""

import json
import os
import subprocess
import sys

import pytest

# The model answers with its exemplar, so that its outputs are the same to the last bit.
PROGRAM = """
import dataclasses, importlib.util, json, sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
from mscaflax.apps.pretrained import pretrained_folder
from mscaflax.evaluation import protocol
from mscaflax.evaluation.batches import Batches
from mscaflax.training.segmenter import load_segmenter

spec = importlib.util.spec_from_file_location("shared", sys.argv[2])
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)

class Echo:
    def generate(self, label, exemplar, exemplar_label, seed=0):
        return exemplar

# An argmax of a real network, whose classes are folded into the toy's three.
segmenter = load_segmenter(pretrained_folder("scenes64"))
pairs = shared.make_pairs(5, 8)
found = {}
for size in map(int, sys.argv[3:]):
    batches = Batches(size)
    assert batches.size % jax.device_count() == 0
    judges = protocol.load_judges(32, batches, predict=lambda x: segmenter.predict(x) % 3)
    truth = {kind: pairs.patches[:5] for kind in ("retrieved", "random", "swapped")}
    done = protocol.evaluate(Echo(), pairs, 3, batches=batches, judges=judges, truth=truth)
    names = {f.name for f in dataclasses.fields(done)} - {"outputs", "values"}
    found[size] = {name: getattr(done, name) for name in names}
print(json.dumps(found))
"""


def walk(value, key=""):
    """("key/key/...", leaf) of a JSON value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from walk(inner, f"{key}/{name}")
    else:
        yield key, value


@pytest.mark.slow
def test_neither_batches_nor_devices_change_a_number(request):
    shared = request.path.with_name("conftest.py")

    def run(devices, *sizes):
        command = [sys.executable, "-c", PROGRAM, str(devices), str(shared), *map(str, sizes)]
        # Compiled as for users, not as fast as the other tests.
        environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    one, eight = run(1, 5, 2), run(8, 3)
    expected = dict(walk(one["5"]))
    assert len(expected) > 100
    for found in (one["2"], eight["3"]):
        found = dict(walk(found))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            close = pytest.approx(value, rel=1e-5, abs=1e-5) if isinstance(value, float) else value
            assert found[key] == close, key
