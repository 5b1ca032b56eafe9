"""The train step, compiled for a TPU slice that is not there: does it fit, and what can it reach?

`libtpu` compiles for any slice without a TPU. It ends the process where it meets an error of its own, so this
module is a program, too: `python -m mscaflax.training.aot ANSWER` reads a request from its standard input.
"""

import ctypes
import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp

from mscaflax.config import config_from_json, config_to_json
from mscaflax.errors import UserError
from mscaflax.nets.vgg import load_vgg16
from mscaflax.training import hlo
from mscaflax.training.chips import Slice, parse_topology
from mscaflax.training.experiment import build_experiment
from mscaflax.training.sharding import check_batch_size, check_fsdp, make_mesh
from mscaflax.training.state import init_state, neutral_statistics
from mscaflax.training.step import make_train_step, train_step
from mscaflax.training.traffic import traffic_floor

# Nothing is asked of a cloud that is not there, and several compilations may run side by side.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

_PR_SET_PDEATHSIG = 1

# What the compiler says when the arguments and temporaries, or the temporaries alone, are too much.
_TOO_LARGE = re.compile(
    r"Used (?P<all>[\d.]+\w) of (?P<hbm>[\d.]+\w) hbm"
    r"|temporaries \((?P<part>[\d.]+\w)\) exceeds available HBM \((?P<left>[\d.]+\w)\)"
)


WHAT_TAKES_LESS = (
    "try a smaller --per_device_batch, --config.train.accumulate=2 (the batch in parts), "
    "--config.model.remat=true (less is kept for the backward pass) or --config.mesh.fsdp=N (devices share "
    "the state)"
)


# Neither suffices alone.
NO_STRIPS = ("xla_tpu_run_space_to_batch=false", "xla_tpu_run_space_to_batch_on_new_platforms=false")


class CompileError(Exception):
    """The program does not fit or the compiler failed: one line says why and what to try."""


def abstract_arguments(experiment, batch_size):
    """(state, vgg, batch) of the train step as trees of jax.ShapeDtypeStruct; nothing is computed."""
    state = jax.eval_shape(functools.partial(init_state, experiment), jax.eval_shape(neutral_statistics))
    vgg = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), load_vgg16())
    shape = (batch_size, experiment.size, experiment.size)
    photo, label = jax.ShapeDtypeStruct((*shape, 3), jnp.float32), jax.ShapeDtypeStruct(shape, jnp.int32)
    return state, vgg, {"image": photo, "label": label, "exemplar": photo, "exemplar_label": label}


def trace_step(experiment, devices, batch_size, fsdp=1):
    """The loop's own train step, traced for `make_mesh(devices, fsdp)`: a jax.stages.Traced."""
    step = make_train_step(experiment, make_mesh(devices, fsdp))
    return step.trace(*abstract_arguments(experiment, batch_size))


def step_floor(experiment, per_device_batch):
    """traffic_floor of one device's part of the step, which is the whole step on its part of the batch.

    Products of each image with its own kernel count as such: masked maps, which convolutions make of them,
    are never in memory.
    """
    experiment = dataclasses.replace(
        experiment, network=dataclasses.replace(experiment.network, convolutions=False)
    )
    arguments = abstract_arguments(experiment, per_device_batch)
    return traffic_floor(jax.make_jaxpr(functools.partial(train_step, experiment))(*arguments).jaxpr)


def batch_size_on(target: Slice, config, per_device_batch=None):
    """Examples of the whole batch: `per_device_batch` on each device; None: what the config says.

    Raises:
      UserError: the batch does not divide over the devices, or tears a pair apart.
    """
    even, accumulate = config.data.both_directions, config.train.accumulate
    check_fsdp(config.mesh.fsdp, target.devices)
    if per_device_batch is None:
        check_batch_size(config.train.batch_size, target.devices, even, accumulate=accumulate)
        return config.train.batch_size
    if even and per_device_batch % 2:
        raise UserError(
            f"--per_device_batch={per_device_batch} is odd: config.data.both_directions puts both "
            "directions of a pair on one device"
        )
    batch_size = per_device_batch * target.devices
    check_batch_size(batch_size, target.devices, even, "the batch", accumulate=accumulate)
    return batch_size


def compile_step(config, num_classes, target: Slice, batch_size, largest=0):
    """Compiles the train step for a slice, in this process.

    Args:
      config: a ConfigDict like configs/base.py.
      num_classes: C.
      target: the slice.
      batch_size: over all devices, a multiple of them.
      largest: how many of the program's largest tensors to list.

    Returns:
      The report, a dict for JSON; memory, flops and bytes are one device's, for one step. With
      `config.train.accumulate`, `flops` and `bytes_moved` are upper bounds.

    Raises:
      jax.errors.JaxRuntimeError: the compiler refuses; it may also end the process.
    """
    from jax.experimental import topologies

    experiment = build_experiment(config, num_classes)
    topology = topologies.get_topology_desc(platform="tpu", topology_name=target.name, **target.chip.options)
    began = time.perf_counter()
    traced = trace_step(experiment, topology.devices, batch_size, config.mesh.fsdp)
    lowered = traced.lower(lowering_platforms=("tpu",))
    lowered_at = time.perf_counter()
    compiled = lowered.compile()
    compiled_at = time.perf_counter()
    text = compiled.as_text()
    tensors = hlo.tensors(text)
    costs, memory = step_costs(compiled, experiment), compiled.memory_analysis()
    written: dict[str, int] = {}
    for row in tensors:
        dtype = row["type"].split("[")[0]
        written[dtype] = written.get(dtype, 0) + row["bytes"] * row["count"]
    return {
        "topology": target.name,
        "devices": target.devices,
        "batch_size": batch_size,
        "accumulate": experiment.accumulate,
        "remat": config.model.remat,
        "fsdp": config.mesh.fsdp,
        "modulation": config.model.modulation,
        "fold_columns": config.model.fold_columns,
        "convolutions": config.model.convolutions,
        "tpu_options": list(config.train.tpu_options),
        "num_classes": num_classes,
        "memory": memory_report(memory, target),
        **roofline(
            target, batch_size, costs["flops"], costs["bytes accessed"], hlo.hbm_bytes(text),
            step_floor(experiment, batch_size // target.devices),
        ),
        "collectives": hlo.collectives(text),
        "written_bytes": dict(sorted(written.items())),
        "largest": tensors[:largest],
        "lower_seconds": round(lowered_at - began, 1),
        "compile_seconds": round(compiled_at - lowered_at, 1),
        "versions": {name: version(name) for name in ("jax", "jaxlib", "libtpu")},
    }  # fmt: skip


def step_costs(stage, experiment):
    """{"flops", "bytes accessed"} of a lowered or compiled step, all parts of its batch counted.

    XLA counts a loop as one round. Times `experiment.accumulate`, the update, which stands outside of the
    loop, counts as often: a little too much.
    """
    costs = stage.cost_analysis()
    return {name: costs[name] * experiment.accumulate for name in ("flops", "bytes accessed")}


def memory_report(memory, target: Slice):
    """Bytes of a device's memory by use, from jax's CompiledMemoryStats; donated arguments count once."""
    parts = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }
    total, capacity = sum(parts.values()), target.device_hbm_bytes
    return {**parts, "total": total, "capacity": capacity, "share": total / capacity}


def roofline(target: Slice, batch_size, flops, bytes_moved, hbm_bytes, floor):
    """What the chip's peaks allow (Williams et al., "Roofline", CACM 2009), for one step on one device.

    Args:
      target: the slice.
      batch_size: over all devices.
      flops, bytes_moved: of one device's program, as XLA counts.
      hbm_bytes: those of them that cross the HBM's interface, see hlo.hbm_bytes.
      floor: its traffic_floor.

    Returns:
      A dict of `flops`, `bytes_moved`, `hbm_bytes`, `traffic_floor`, `traffic_ratio` and `hbm_ratio` (of both
      to the floor), `compute_seconds`, `memory_seconds` (of the HBM's bytes) and `images_per_second`, the
      most that the whole slice can reach.
    """
    compute, memory = flops / target.device_flops, hbm_bytes / target.device_bandwidth
    return {
        "flops": flops,
        "bytes_moved": bytes_moved,
        "hbm_bytes": hbm_bytes,
        "traffic_floor": floor,
        "traffic_ratio": bytes_moved / floor,
        "hbm_ratio": hbm_bytes / floor,
        "compute_seconds": compute,
        "memory_seconds": memory,
        "images_per_second": batch_size / max(compute, memory),
    }


def compile_apart(config, num_classes, target: Slice, batch_size, largest=0):
    """As `compile_step`, in a process of its own.

    Raises:
      UserError: libtpu is missing.
      CompileError: the program does not fit, or the compiler failed.
    """
    if find_spec("libtpu") is None:
        raise UserError("libtpu is missing (it exists for x86-64 Linux): pip install 'libtpu==0.0.42.*'")
    request = {
        "config": config_to_json(config),
        "num_classes": num_classes,
        "topology": target.name,
        "batch_size": batch_size,
        "largest": largest,
    }
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(answer)],
            input=json.dumps(request),
            env=os.environ | _ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode > 0:
            raise RuntimeError(f"{__name__} failed:\n{done.stderr}")
        if done.returncode < 0:
            raise CompileError(explain_failure(done.stderr, -done.returncode))
        found = json.loads(answer.read_text())
    if "error" in found:
        raise CompileError(explain_failure(found["error"]))
    return found


def explain_failure(text, number=None):
    """One line from what a failed compilation said: why, and what to try.

    Args:
      text: the compiler's error, or all that the process wrote.
      number: of the signal that ended the process, if one did.
    """
    if full := _TOO_LARGE.search(text):
        needs, available = full["all"] or full["part"], full["hbm"] or full["left"]
        return f"it does not fit: it needs {needs} of {available} memory; {WHAT_TAKES_LESS}"
    if unknown := re.search(r"No such compile option: '(\w+)'", text):
        return f"the TPU compiler knows no {unknown[1]}: correct config.train.tpu_options"
    if number == signal.SIGKILL:
        return "the compiler was killed, probably for its memory: end other programs, or use a larger machine"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # A fatal message stands above the stack and below all that was said before.
    fatal = [line for line in lines if "Check fail" in line or re.match(r"F\d{4} ", line)]
    reason = (fatal or lines or ["it said nothing"])[0]
    if number is not None:
        reason = f"{signal.Signals(number).name}, {reason}"
    advice = "try another --per_device_batch, or a newer libtpu"
    if fatal and "space_to_batch_converter" in reason:
        advice = f"have it cut no maps into strips: add {' and '.join(NO_STRIPS)} to config.train.tpu_options"
    return f"the TPU compiler failed: {reason}; {advice}"


def main(answer):
    """Compiles what standard input asks for; writes the report, or {"error": ...}, to the file `answer`."""
    # No orphan that computes on for half an hour where the command was killed; libtpu exists for Linux alone.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    request = json.load(sys.stdin)
    config, target = config_from_json(request.pop("config")), parse_topology(request.pop("topology"))
    try:
        found = compile_step(config, target=target, **request)
    except jax.errors.JaxRuntimeError as error:
        found = {"error": str(error)}
    Path(answer).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
