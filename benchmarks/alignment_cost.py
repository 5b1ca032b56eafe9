"""Time and memory of the alignments `msca` and `dense` alone, over the size of the feature maps.

python benchmarks/alignment_cost.py --json=cost.json --plot=cost.png          # the plot needs '.[docs]'

Both align one scale: the same random float32 maps of h × w positions, batch 1, the channels of
configs/base.py at a quarter of the image's resolution, about as many parameters. The axis is the size of
these maps, not of images: in a model, `dense` aligns maps of a quarter of the image's height and width,
`msca` those of every scale.

Forward gives the target's features; backward, with the forward pass in it, their gradient by parameters,
image and label features. The programs take turns in every repetition, each once untimed first.

Memory is counted twice: what the compiler reserves for temporaries and outputs, and, on Linux, how far the
resident memory of a fresh process rises in one call. On CPUs, XLA hands some products to a library whose
memory it does not count: the programs that it counts (those of --compile_only among them, which never run)
are compiled without it.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mscaflax.files import write_atomically
from mscaflax.nets.alignments import ALIGNMENTS, AlignmentInputs

KINDS = ("msca", "dense")
PASSES = ("forward", "backward")
REGIONS, IMAGE_CHANNELS, LABEL_CHANNELS = 16, 64, 48
MAX_REPEATS, MIN_REPEATS = 30, 3


def build(kind):
    """The alignment of a single scale."""
    # The number of classes counts for neither kind.
    return ALIGNMENTS[kind](1, REGIONS, (IMAGE_CHANNELS,), (LABEL_CHANNELS,), scales=(True,))


def arguments_of(kind, size):
    """(parameters, AlignmentInputs, cotangent [1, size, size, n]); the last two for both kinds."""
    rng = np.random.default_rng(size)
    images, exemplar_labels, target_labels, cotangent = (
        jnp.asarray(rng.normal(size=(1, size, size, channels)), jnp.float32)
        for channels in (IMAGE_CHANNELS, LABEL_CHANNELS, LABEL_CHANNELS, IMAGE_CHANNELS)
    )
    inputs = AlignmentInputs((images,), (exemplar_labels,), (target_labels,), None, None, (None,), (None,))
    return jax.jit(build(kind).init)(jax.random.key(0), small_inputs()), inputs, cotangent


def small_inputs():
    """Parameters do not depend on the size: no large map is needed to make them."""
    images, labels = (jnp.zeros((1, 4, 4, channels)) for channels in (IMAGE_CHANNELS, LABEL_CHANNELS))
    return AlignmentInputs((images,), (labels,), (labels,), None, None, (None,), (None,))


def lower_pass(kind, direction, arguments):
    """The program for `arguments_of`, to be compiled."""
    net = build(kind)

    def forward(params, inputs, cotangent):
        return net.apply(params, inputs)[0][0].features

    def backward(params, inputs, cotangent):
        def product(params, inputs):
            return (forward(params, inputs, cotangent) * cotangent).sum()

        return jax.grad(product, argnums=(0, 1))(params, inputs)

    return jax.jit({"forward": forward, "backward": backward}[direction]).lower(*arguments)


def compiled_bytes(lowered):
    """Bytes of temporaries and outputs, all of them counted by the compiler."""
    no_library = {"xla_cpu_experimental_ynn_fusion_type": ""} if jax.default_backend() == "cpu" else None
    memory = lowered.compile(compiler_options=no_library).memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def time_in_turns(programs, arguments, seconds):
    """{(kind, pass): [seconds of each repetition]}; stops after `seconds`, but not before MIN_REPEATS."""
    for (kind, _), program in programs.items():
        jax.block_until_ready(program(*arguments[kind]))
    times = {key: [] for key in programs}
    deadline = time.perf_counter() + seconds
    for repeat in range(MAX_REPEATS):
        if repeat >= MIN_REPEATS and time.perf_counter() > deadline:
            break
        for (kind, direction), program in programs.items():
            # Not timed: what the program before leaves to the allocator, gigabytes of `dense`, is its cost.
            jax.block_until_ready(program(*arguments[kind]))
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments[kind]))
            times[kind, direction].append(time.perf_counter() - start)
    return times


def measure(size, *, run, seconds=0.0):
    """Compiles both kinds at one size, and times them if `run`: {"size", "compiled_bytes", "seconds"}."""
    arguments = {kind: arguments_of(kind, size) for kind in KINDS}
    lowered = {key: lower_pass(*key, arguments[key[0]]) for key in itertools.product(KINDS, PASSES)}
    found = {"size": size, "compiled_bytes": nested({k: compiled_bytes(v) for k, v in lowered.items()})}
    if run:
        programs = {key: program.compile() for key, program in lowered.items()}
        found["seconds"] = nested(time_in_turns(programs, arguments, seconds))
    return found


def nested(values):
    return {kind: {p: values[kind, p] for p in PASSES} for kind in KINDS}


def _status(name):
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def resident_bytes(kind, size):
    """{pass: how far this process's resident memory rises above its state before in one call}."""
    found = {}
    for direction in PASSES:
        for side in (4, size):  # the first call of all brings in threads and code
            arguments = arguments_of(kind, side)
            program = lower_pass(kind, direction, arguments).compile()
            jax.block_until_ready(arguments)
            before = _status("VmRSS")
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the compiler's peak
            jax.block_until_ready(program(*arguments))
            found[direction] = _status("VmHWM") - before
    return found


def measure_resident(sizes):
    """[{kind: resident_bytes} for each size], each in a process of its own; None without Linux's /proc."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        return [{kind: pool.submit(resident_bytes, kind, size).result() for kind in KINDS} for size in sizes]


def growth(sizes, values):
    """The slope of log(value) over log(positions): 1 is linear, 2 quadratic in the number of positions."""
    # Freed memory that is used again makes a rise of none.
    rows = [(size, value) for size, value in zip(sizes, values, strict=True) if value > 0]
    if len(rows) < 2:
        return float("nan")
    sizes, values = np.log(rows).T
    return float(np.polyfit(2 * sizes, values, 1)[0])


def series(results, name, kind, direction):
    """Sizes, and one number for each: bytes, or the shortest time in seconds."""
    rows = [row for row in results["sizes"] if name in row]
    values = [row[name][kind][direction] for row in rows]
    return [row["size"] for row in rows], [min(v) if isinstance(v, list) else v for v in values]


def _row(cells):
    return f"| {' | '.join(cells)} |"


def time_table(results):
    """Markdown: shortest and median milliseconds, and the median over repetitions of dense / msca."""
    header = [f"{p}: {column}" for p in PASSES for column in (*KINDS, "dense / msca")]
    lines = [_row(["feature map", *header]), _row(["---", *["---:"] * len(header)])]
    for row in results["sizes"]:
        if "seconds" not in row:
            continue
        cells = [f"{row['size']}×{row['size']}"]
        for direction in PASSES:
            pair = [row["seconds"][kind][direction] for kind in KINDS]
            cells += [f"{1e3 * min(t):.2f} ({1e3 * statistics.median(t):.2f})" for t in pair]
            cells.append(f"{statistics.median(d / m for m, d in zip(*pair, strict=True)):.1f}")
        lines.append(_row(cells))
    slopes = [
        cell
        for p in PASSES
        for cell in (*(f"{growth(*series(results, 'seconds', k, p)):.2f}" for k in KINDS), "")
    ]
    return "\n".join([*lines, _row(["growth", *slopes])])


def memory_table(results):
    """Markdown: megabytes that the compiler counts, and those by which resident memory rises."""
    names = ("compiled_bytes", *(["resident_bytes"] if "resident_bytes" in results["sizes"][0] else []))
    columns = list(itertools.product(names, PASSES, KINDS))
    header = [f"{name.removesuffix('_bytes')}, {p}: {kind}" for name, p, kind in columns]
    lines = [_row(["feature map", *header]), _row(["---", *["---:"] * len(header)])]
    for row in results["sizes"]:
        name = f"{row['size']}×{row['size']}{'' if 'seconds' in row else ', compiled, not run'}"
        cells = [f"{row[n][kind][p] / 1e6:.1f}" if n in row else "–" for n, p, kind in columns]
        lines.append(_row([name, *cells]))
    slopes = [f"{growth(*series(results, name, kind, p)):.2f}" for name, p, kind in columns]
    return "\n".join([*lines, _row(["growth", *slopes])])


def draw(results, path):
    """Saves log-log curves of the shortest time and of the compiled memory, with their slopes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), constrained_layout=True)
    for axis, name, unit in zip(axes, ("seconds", "compiled_bytes"), (1e3, 1e-6), strict=True):
        for (kind, color), (direction, line) in itertools.product(
            zip(KINDS, ("tab:blue", "tab:red"), strict=True), zip(PASSES, ("--", "-"), strict=True)
        ):
            sizes, values = series(results, name, kind, direction)
            label = f"{kind}, {direction}: slope {growth(sizes, values):.2f}"
            axis.loglog(
                np.square(sizes), np.multiply(values, unit), line, marker="o", color=color, label=label
            )
        all_sizes = [row["size"] for row in results["sizes"] if name in row]
        axis.set_xticks(np.square(all_sizes), [f"{size}×{size}" for size in all_sizes])
        axis.minorticks_off()
        axis.set_xlabel("feature map, positions h·w")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_ylabel("shortest time, ms")
    axes[1].set_ylabel("compiled temporaries and outputs, MB")
    compiled = [str(row["size"]) for row in results["sizes"] if "seconds" not in row]
    axes[0].set_title("time, measured")
    axes[1].set_title("memory, compiled" + (f" ({', '.join(compiled)}: not run)" if compiled else ""))
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 48, 64, 96, 128], help="to run")
    parser.add_argument("--compile_only", type=int, nargs="*", default=[256], help="sizes not to run")
    parser.add_argument("--seconds", type=float, default=15, help="of timing for each size")
    parser.add_argument("--json", required=True, help="file for all numbers")
    parser.add_argument("--plot", help="PNG of the curves")
    options = parser.parse_args()
    if options.plot:
        import matplotlib  # noqa: F401 before minutes of measuring, not after

    # First: the large programs of this process would leave the small ones too little memory.
    resident = measure_resident(options.sizes)
    sizes = [measure(size, run=True, seconds=options.seconds) for size in options.sizes]
    for row, found in zip(sizes, resident or (), strict=bool(resident)):
        row["resident_bytes"] = found
    sizes += [measure(size, run=False) for size in options.compile_only]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    results = {
        "device": jax.devices()[0].device_kind,
        "cores": cores,
        "jax": jax.__version__,
        "channels": {"regions": REGIONS, "image": IMAGE_CHANNELS, "label": LABEL_CHANNELS},
        "sizes": sizes,
    }
    write_atomically(options.json, json.dumps(results, indent=1) + "\n")
    repeats = [len(row["seconds"]["msca"]["forward"]) for row in sizes if "seconds" in row]
    print(
        f"One scale, batch 1, float32, {IMAGE_CHANNELS} image and {LABEL_CHANNELS} label channels, "
        f"K = {REGIONS}; {results['device']}, {cores} cores, jax {jax.__version__}; {min(repeats)} to "
        f"{max(repeats)} repetitions. growth: the fitted exponent of the number of positions, h·w.\n"
    )
    print(f"Milliseconds, shortest (median):\n\n{time_table(results)}\n")
    print(f"Megabytes, counted by the compiler and seen as resident:\n\n{memory_table(results)}")
    if options.plot:
        draw(results, options.plot)


if __name__ == "__main__":
    main()
