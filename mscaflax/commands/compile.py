"""`mscaflax compile`: the train step for a TPU slice that is not there."""

import argparse
import json
import sys

from mscaflax.commands.argument_types import natural, positive
from mscaflax.errors import UserError
from mscaflax.files import writable_file

HELP = "compile the train step for a TPU slice that is not there: memory, traffic, speed limits"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--topology", required=True, metavar="CHIP:SHAPE", help="the slice, e.g. v5e:4x4 or v5p:2x2x2"
    )
    parser.add_argument(
        "--per_device_batch",
        type=positive,
        metavar="N",
        help="examples per device (default: config.train.batch_size over the slice's devices)",
    )
    parser.add_argument(
        "--num_classes", type=positive, metavar="N", help="classes (default: those of the config's dataset)"
    )
    parser.add_argument(
        "--largest", type=natural, default=0, metavar="N", help="also list the N largest tensors (default: 0)"
    )
    parser.add_argument("--output", metavar="FILE", help="write the numbers as JSON, too")
    parser.add_argument(
        "--json", action="store_true", help="print the numbers as JSON, and the table on stderr"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command: 0 when compiled, 1 when the step does not fit or the compiler failed.

    Raises:
      UserError: a wrong argument, a batch that does not divide, or no TPU compiler.
    """
    from rich.console import Console

    from mscaflax.config import load_config
    from mscaflax.training.aot import WHAT_TAKES_LESS, CompileError, batch_size_on, compile_apart
    from mscaflax.training.chips import parse_topology
    from mscaflax.training.experiment import build_experiment

    target = parse_topology(args.topology)
    config = load_config(args.config_argv)
    batch_size = batch_size_on(target, config, args.per_device_batch)
    num_classes = args.num_classes or _dataset_classes(config.data)
    build_experiment(config, num_classes)  # its complaints, before minutes go by
    output = writable_file("--output", args.output) if args.output else None
    try:
        with Console(stderr=True).status(f"compiling for {target.devices} devices (minutes)"):
            report = compile_apart(config, num_classes, target, batch_size, args.largest)
    except CompileError as error:
        print(f"mscaflax: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(table(report, target), file=sys.stderr if args.json else sys.stdout, flush=True)
    numbers = json.dumps(report, indent=2, sort_keys=True)
    if args.json:
        print(numbers, flush=True)
    if output:
        from mscaflax.files import write_atomically

        write_atomically(output, numbers + "\n")
    if report["memory"]["share"] > 1:
        print(f"mscaflax: it does not fit: {WHAT_TAKES_LESS}", file=sys.stderr)
        return 1
    return 0


def _dataset_classes(data) -> int:
    """C of the config's dataset; those that are known by name need not be prepared."""
    if data.name == "scenes":
        from mscaflax.data.scenes import CLASS_NAMES

        return len(CLASS_NAMES)
    if data.name == "coco_stuff":
        from mscaflax.data.coco_stuff import coco_stuff_classes

        return coco_stuff_classes().num_classes
    from mscaflax.data.datasets import open_dataset

    try:
        return open_dataset(data.name, data.data_dir or None).classes.num_classes
    except UserError as error:
        raise UserError(f"{error}; or give --num_classes=N") from None


def table(report, target) -> str:
    """The report as lines of text; `target` is its Slice."""
    memory = report["memory"]
    rows = [
        (f"memory: {name}", _gb(memory[name])) for name in ("arguments", "outputs", "temporaries", "program")
    ]
    rows += [
        (
            "memory: total",
            f"{_gb(memory['total'])}   {memory['share']:.0%} of {_gb(memory['capacity']).strip()}",
        ),
        (
            "arithmetic",
            f"{report['flops'] / 1e12:9.3f} TFLOP   {report['compute_seconds'] * 1e3:.1f} ms "
            f"at {target.device_flops / 1e12:.0f} TFLOP/s",
        ),
        (
            "bytes moved",
            f"{_gb(report['bytes_moved'])}   as XLA counts, the chip's fast memory included",
        ),
        (
            "bytes over HBM",
            f"{_gb(report['hbm_bytes'])}   {report['memory_seconds'] * 1e3:.1f} ms "
            f"at {target.device_bandwidth / 1e9:.0f} GB/s",
        ),
        (
            "traffic floor",
            f"{_gb(report['traffic_floor'])}   {report['traffic_ratio']:.2f} times that is moved, "
            f"{report['hbm_ratio']:.2f} times over HBM",
        ),
        ("images per second", f"{report['images_per_second']:9.0f}   at most, on the whole slice"),
    ]
    rows += [
        (kind, f"{_gb(row['bytes'])}   in {row['count']}")
        for kind, row in sorted(report["collectives"].items())
    ]
    rows += [(f"written as {dtype}", _gb(count)) for dtype, count in report["written_bytes"].items()]
    each = f"{report['batch_size'] // report['devices']} examples each"
    each += f" in {report['accumulate']} parts" if report["accumulate"] > 1 else ""
    each += ", rematerialized" if report["remat"] else ""
    each += f", {report['fsdp']} devices share the state" if report["fsdp"] > 1 else ""
    lines = [
        f"{report['topology']}: {report['devices']} devices, {each}, {report['num_classes']} "
        f"classes; compiled in {report['compile_seconds']:.0f} s. One step of one device:",
        *(f"  {name:20} {value}" for name, value in rows),
    ]
    if report["largest"]:
        lines += ["Largest tensors (size × number, readers of each kind, padding, what and where):"]
        lines += [
            f"  {_gb(row['bytes'])} × {row['count']:<3} {row['reads']:3}  {row['padding']:5.2f}  "
            f"{row['operation']} {row['type']} {row['place']}"
            for row in report["largest"]
        ]
    return "\n".join(lines)


def _gb(count) -> str:
    return f"{count / 1e9:9.3f} GB"
