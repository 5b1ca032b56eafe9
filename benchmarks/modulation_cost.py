"""Parameters, time and memory per image of the modulations `spade` and `decoupled`, over the image's size.

python benchmarks/modulation_cost.py [--config=scenes64] [--sizes 64 128 256] [--seconds=15]

The whole synthesis network of a config, without VGG, batch 1, float32. Forward gives the image; backward,
with the forward pass in it, the gradient of its mean by all parameters. The programs take turns in every
repetition. Memory is what the compiler reserves for temporaries and outputs, of a second program without
fused library calls, whose memory it does not count. All sizes take some ten minutes, most of them compiling.
"""

import argparse
import itertools
import statistics
import sys
import time

import jax
from alignment_cost import compiled_bytes

from mscaflax.config import load_config
from mscaflax.nets.vgg import TAP_CHANNELS
from mscaflax.training.experiment import build_network
from mscaflax.training.state import neutral_statistics

KINDS = ("spade", "decoupled")
PASSES = ("forward", "backward")
NUM_CLASSES = 12
MAX_REPEATS, MIN_REPEATS = 30, 3


def build(config, kind):
    """The synthesis network of the config with another modulation."""
    config = config.copy_and_resolve_references()
    config.model.modulation = kind
    config.model.dtype = "float32"
    return build_network(config.model, NUM_CLASSES)


def inputs_of(size):
    """(label, exemplar, its label map, its taps, statistics, noise keys) of one image of size × size."""
    label = jax.random.randint(jax.random.key(0), (1, size, size), 0, NUM_CLASSES)
    image = jax.random.uniform(jax.random.key(1), (1, size, size, 3), minval=-1.0)
    taps = [
        jax.random.normal(jax.random.key(2), (1, size >> i, size >> i, c)) for i, c in enumerate(TAP_CHANNELS)
    ]
    return label, image, label, taps, neutral_statistics(), jax.random.split(jax.random.key(3), 1)


def measure(config, size, seconds):
    """{kind: {"parameters", "bytes": {pass}, "seconds": {pass: [of each repetition]}}}."""
    arguments = inputs_of(size)
    found, programs, parameters = {}, {}, {}
    for kind in KINDS:
        network = build(config, kind)
        parameters[kind] = jax.jit(network.init)(jax.random.key(0), *inputs_of(32))["params"]

        def forward(params, *inputs, network=network):
            return network.apply({"params": params}, *inputs).image

        def backward(params, *inputs, forward=forward):
            return jax.grad(lambda params: forward(params, *inputs).mean())(params)

        found[kind] = {
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(parameters[kind])),
            "bytes": {},
            "seconds": {p: [] for p in PASSES},
        }
        for name, function in zip(PASSES, (forward, backward), strict=True):
            print(f"{size}×{size}, {kind}: compiling {name}, twice", file=sys.stderr, flush=True)
            lowered = jax.jit(function).lower(parameters[kind], *arguments)
            found[kind]["bytes"][name] = compiled_bytes(lowered)
            program = lowered.compile()
            jax.block_until_ready(program(parameters[kind], *arguments))
            programs[kind, name] = program
    deadline = time.perf_counter() + seconds
    for repeat in range(MAX_REPEATS):
        if repeat >= MIN_REPEATS and time.perf_counter() > deadline:
            break
        for kind, name in itertools.product(KINDS, PASSES):
            start = time.perf_counter()
            jax.block_until_ready(programs[kind, name](parameters[kind], *arguments))
            found[kind]["seconds"][name].append(time.perf_counter() - start)
    return found


def table(results):
    """Markdown: one row per size and modulation; times are medians, ratios medians over repetitions."""
    titles = ["image", "modulation", "parameters"]
    titles += [f"{p}, {unit}" for p in PASSES for unit in ("ms", "MB")] + ["backward: spade / decoupled"]
    lines = ["| " + " | ".join(titles) + " |", "| --- | --- |" + " ---: |" * (len(titles) - 2)]
    for size, found in results.items():
        pair = [found[kind]["seconds"]["backward"] for kind in KINDS]
        ratio = statistics.median(a / b for a, b in zip(*pair, strict=True))
        for kind in KINDS:
            row = found[kind]
            cells = [f"{size}×{size}", kind, f"{row['parameters']:,d}"]
            for name in PASSES:
                cells.append(f"{1e3 * statistics.median(row['seconds'][name]):.1f}")
                cells.append(f"{row['bytes'][name] / 1e6:.0f}")
            lines.append("| " + " | ".join([*cells, f"{ratio:.2f}" if kind == KINDS[0] else ""]) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="scenes64")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--seconds", type=float, default=15, help="of timing for each size")
    options = parser.parse_args()
    config = load_config([f"--config={options.config}"])
    for place, size in enumerate(options.sizes):
        # As they come: the largest size takes minutes to compile.
        title, rule, *rows = table({size: measure(config, size, options.seconds)}).splitlines()
        print("\n".join(rows if place else [title, rule, *rows]), flush=True)


if __name__ == "__main__":
    main()
