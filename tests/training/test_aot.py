"""What a compilation is held against and how its failures are told; lowering for accelerators."""

import re
import signal
from dataclasses import replace
from types import SimpleNamespace

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from mscaflax.config import load_config
from mscaflax.errors import UserError
from mscaflax.training import aot
from mscaflax.training.aot import (
    NO_STRIPS,
    abstract_arguments,
    batch_size_on,
    explain_failure,
    memory_report,
    roofline,
    step_costs,
    trace_step,
)
from mscaflax.training.chips import CHIPS, Slice, parse_topology
from mscaflax.training.experiment import build_experiment
from mscaflax.training.sharding import BATCH_AXES, MIN_SPLIT, make_mesh
from mscaflax.training.step import make_train_step


@pytest.mark.parametrize(
    "name, devices, memory, intensity",
    [
        # Memory of a device in GiB, and the operations per byte from which on arithmetic is the limit.
        ("v4:2x2x4", 16, 32, 224),
        ("v5e:4x4", 16, 16, 241),
        ("v5p:2x2x1", 4, 95, 166),
        ("v6e:2x4", 8, 32, 560),
        ("tpu7x:2x2x1", 8, 96, 313),
    ],
)
def test_slices(name, devices, memory, intensity):
    target = parse_topology(name)
    assert target.name == name and target.devices == devices
    assert target.device_hbm_bytes == memory * 2**30
    assert target.device_flops / target.device_bandwidth == pytest.approx(intensity, rel=0.01)


def test_every_chip_is_tested():
    assert set(CHIPS) == {"v4", "v5e", "v5p", "v6e", "tpu7x"}


@pytest.mark.parametrize(
    "name, said",
    [
        ("h100:2x2", "no chip 'h100'; give one of v4, v5e"),
        ("v5e", "along 2 axes, as in v5e:4x4"),
        ("v5e:2x2x1", "along 2 axes, as in v5e:4x4"),
        ("v5p:4x4", "along 3 axes, as in v5p:2x2x1"),
        ("v5e:4×4", "along 2 axes"),
        ("v5e:0x4", "along 2 axes"),
        ("v5e:3x4", "even sides first"),
        ("v5e:16x32", "a pod of v5e has 256 chips"),
    ],
)
def test_wrong_topologies(name, said):
    with pytest.raises(UserError, match=said):
        parse_topology(name)


def test_the_slower_of_both_limits_the_speed():
    target = Slice("v5e", (4, 4))
    report = roofline(target, 128, 197e12 * 0.05, 819e9 * 0.12, 819e9 * 0.1, 819e9 * 0.04)
    assert report["compute_seconds"] == pytest.approx(0.05)
    assert report["memory_seconds"] == pytest.approx(0.1)
    assert report["traffic_ratio"] == pytest.approx(3.0)
    assert report["hbm_ratio"] == pytest.approx(2.5)
    assert report["images_per_second"] == pytest.approx(1280)
    assert roofline(target, 128, 197e12 * 0.2, 819e9, 819e9 * 0.1, 1)["images_per_second"] == 640


def test_donated_memory_counts_once():
    sizes = SimpleNamespace(
        argument_size_in_bytes=5 * 2**30,
        output_size_in_bytes=4 * 2**30,
        alias_size_in_bytes=3 * 2**30,
        temp_size_in_bytes=2 * 2**30,
        generated_code_size_in_bytes=0,
    )
    report = memory_report(sizes, Slice("v5e", (2, 2)))
    assert report["total"] == 8 * 2**30 and report["share"] == 0.5


def test_batches_over_devices():
    config = load_config(["--config=tiny", "--config.train.batch_size=16"])
    small = Slice("v5e", (2, 2))
    assert batch_size_on(small, config) == 16
    assert batch_size_on(small, config, 6) == 24
    with pytest.raises(UserError, match="positive multiple of 32"):
        batch_size_on(Slice("v5e", (4, 4)), config)
    with pytest.raises(UserError, match="per_device_batch=3 is odd"):
        batch_size_on(small, config, 3)
    config.data.both_directions = False
    assert batch_size_on(small, config, 3) == 12


FATAL = """\
E0000 00:00:1 123 common_lib.cc:554] INVALID_ARGUMENT: no metadata
F0000 00:00:2 123 layout_assignment.cc:99] Check failed: a == b (1 vs. 2)
*** Check failure stack trace: ***
    @     0x7f  (unknown)
"""


# libtpu 0.0.42.1, of `tiny` with folded columns and convolutions, 2 examples on a device.
STRIPS = """\
WARNING: Logging before InitGoogle() is written to STDERR
F1130 06:36:34.965362    2221 space_to_batch_converter.cc:2007] Check failed: \
PropagateOnBackpropFilterConv(consumer) is OK (INVALID_ARGUMENT: Operands to select must be the same shape; \
got bf16[32,16,3,8] and pred[32,16,3,8].
=== Source Location Trace: ===
third_party/tensorflow/compiler/xla/util.h:300
"""


@pytest.mark.parametrize(
    "text, number, said",
    [
        ("RESOURCE_EXHAUSTED: Used 22.84G of 15.75G hbm. Exceeded", None, "22.84G of 15.75G"),
        (
            "the total memory required for HLO temporaries (47.68G) exceeds available HBM (15.75G).",
            None,
            "47.68G of 15.75G.*smaller --per_device_batch",
        ),
        ("INTERNAL: Mosaic failed\nmore of it", None, "failed: INTERNAL: Mosaic failed; try another"),
        (FATAL, signal.SIGABRT, "SIGABRT, F0000 .*Check failed: a == b.*try another --per_device_batch"),
        (
            STRIPS,
            signal.SIGABRT,
            "PropagateOnBackpropFilterConv.*xla_tpu_run_space_to_batch=false and "
            "xla_tpu_run_space_to_batch_on_new_platforms=false to config.train.tpu_options$",
        ),
        (
            "INVALID_ARGUMENT: No such compile option: 'xla_a'",
            None,
            "no xla_a: correct config.train.tpu_options",
        ),
        ("", signal.SIGKILL, "killed, probably for its memory"),
        ("", signal.SIGSEGV, "SIGSEGV, it said nothing"),
    ],
)
def test_failures_are_told_in_a_line(text, number, said):
    line = explain_failure(text, number)
    assert "\n" not in line
    assert re.search(said, line)


def test_what_the_failure_advises_is_what_the_config_for_tpus_has():
    assert set(NO_STRIPS) <= set(load_config(["--config=coco_stuff256"]).train.tpu_options)


@pytest.fixture(scope="module")
def tiny_experiment():
    # Wide enough at the coarsest scale to have arrays that are worth splitting.
    wide = "--config.model.generator_channels=(8,8,16,48,48)"
    return build_experiment(load_config(["--config=tiny", "--config.model.dtype=bfloat16", wide]), 5)


def arguments_of(program):
    """Of a program's text: {output: axes of the mesh along the dimensions of the argument in whose place it
    comes}, and the axes of each other argument."""
    head = program[program.index("@main(") : program.index(") -> (")]
    donated, kept = {}, []
    for argument in re.split(r", (?=%arg\d)", head):
        axes = re.search(r"sdy\.sharding<@mesh, \[(.*?)\]>", argument)[1]
        alias = re.search(r"tf\.aliasing_output = (\d+)", argument)
        axes = [tuple(re.findall(r'"(\w+)"', part)) for part in re.findall(r"\{(.*?)\}", axes)]
        if alias:
            donated[int(alias[1])] = axes
        else:
            kept.append(axes)
    return donated, kept


def test_the_traced_step_donates_and_shards_as_the_loops(tiny_experiment, monkeypatch):
    """Four devices that are not there, two of which share the state."""
    axes = {"axis_types": (AxisType.Auto,) * 2}
    monkeypatch.setattr(
        aot, "make_mesh", lambda devices, fsdp: AbstractMesh((len(devices) // fsdp, fsdp), BATCH_AXES, **axes)
    )
    traced = trace_step(tiny_experiment, [None] * 4, 8, fsdp=2)
    state, vgg, batch = abstract_arguments(tiny_experiment, 8)
    given = jax.tree.leaves(traced.args_info[0])
    count = len(jax.tree.leaves(state))
    assert [leaf.donated for leaf in given] == [True] * count + [False] * (len(given) - count)
    assert len(given) == count + len(jax.tree.leaves((vgg, batch)))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), traced.out_info[0]) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    donated, kept = arguments_of(traced.lower(lowering_platforms=("tpu",)).as_text())
    split = []
    for index, (path, leaf) in enumerate(jax.tree.leaves_with_path(state)):
        if jax.tree_util.keystr(path).endswith("/sigma']"):
            continue  # the step makes it anew, and does not take it
        expected = [()] * leaf.ndim
        even = [axis for axis in range(leaf.ndim) if leaf.shape[axis] % 2 == 0]
        if leaf.size >= MIN_SPLIT and even:
            expected[max(even, key=lambda axis: (leaf.shape[axis], axis))] = ("fsdp",)
            split.append(jax.tree_util.keystr(path))
        assert donated[index] == expected, path
    # Parameters, moving average and the optimizer's state.
    assert {name.split("[")[0] for name in split} == {".generator", ".ema", ".generator_optimizer"}
    # Pretrained weights are whole; of the batch, exemplar, image and label are taken (the exemplar's label is
    # that of the other direction of its pair).
    batch_places = [places for places in kept if any(places)]
    assert [(len(places), places[0]) for places in batch_places] == [
        (4, BATCH_AXES),
        (4, BATCH_AXES),
        (3, BATCH_AXES),
    ]


def test_convolutions_with_each_image_s_kernel_are_local(tiny_experiment):
    """Over the whole batch their arithmetic would grow with the square of the number of devices."""
    network = replace(tiny_experiment.network, convolutions=True)
    experiment = replace(tiny_experiment, network=network)
    assert "shard_map" in str(trace_step(experiment, jax.devices()[:1], 8).jaxpr)
    # What they mask is never in memory, and the floor is that of the products.
    assert aot.step_floor(experiment, 8) == aot.step_floor(tiny_experiment, 8)


def test_a_batch_in_parts_costs_what_the_whole_does(tiny_experiment):
    flops = {}
    for parts in (1, 2):
        experiment = replace(tiny_experiment, accumulate=parts)
        step = make_train_step(experiment, make_mesh(jax.devices()[:1]))
        flops[parts] = step_costs(step.lower(*abstract_arguments(experiment, 8)), experiment)["flops"]
    assert flops[2] == pytest.approx(flops[1], rel=0.03) and flops[2] > flops[1]


def test_the_step_lowers_for_accelerators(tiny_experiment):
    step = make_train_step(tiny_experiment, make_mesh(jax.devices()[:1]))
    exported = jax.export.export(step, platforms=("cuda", "tpu"))(*abstract_arguments(tiny_experiment, 4))
    assert exported.platforms == ("cuda", "tpu")
    assert "stablehlo.convolution" in exported.mlir_module()
