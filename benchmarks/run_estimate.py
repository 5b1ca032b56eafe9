"""What a whole training run would take on a slice, on paper: from a report of `mscaflax compile`.

mscaflax compile --config=coco_stuff256 --topology=v4:2x2x2 --per_device_batch=8 --output=v4.json
python benchmarks/run_estimate.py v4.json --config=coco_stuff256 --devices=64
    [--share=0.5] [--devices_per_host=4] [--photo_kb=145] [--disk=1e9]

The run sees as many examples as the config says (steps times batch), in batches of what the report's devices
hold. The report's slower peak gives the least time of a step; `--share` says what part of that speed is
assumed. Communication, evaluation and waiting are in that share, nothing of it was measured. A checkpoint's
bytes are those of the state's arrays; `--disk`, bytes per second, is an assumption, too, as is the stored
photo's size (benchmarks/coco_scale.py measures it). A photo gives two examples where the config pairs both
ways.
"""

import argparse
import functools
import json
import math
from pathlib import Path

import jax

from mscaflax.config import load_config
from mscaflax.training.experiment import build_experiment
from mscaflax.training.state import init_state, neutral_statistics


def state_bytes(config, num_classes):
    """Bytes of a checkpoint's arrays: parameters, moving average, optimizers' state."""
    experiment = build_experiment(config, num_classes)
    state = jax.eval_shape(functools.partial(init_state, experiment), jax.eval_shape(neutral_statistics))
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))


def estimate(report, config, options):
    """The numbers of the run, a dict."""
    each = report["batch_size"] / report["devices"]
    fastest = max(report["compute_seconds"], report["memory_seconds"])
    batch_size = int(each * options.devices)
    steps = math.ceil(config.train.steps * config.train.batch_size / batch_size)
    images_per_second = batch_size / fastest * options.share
    hosts = math.ceil(options.devices / options.devices_per_host)
    photos = images_per_second / hosts / (2 if config.data.both_directions else 1)
    size = state_bytes(config, report["num_classes"])
    return {
        "devices": options.devices,
        "hosts": hosts,
        "batch": batch_size,
        "steps": steps,
        "hours at the chips' peaks": steps * fastest / 3600,
        f"hours at {options.share:.0%} of them": steps * fastest / options.share / 3600,
        "photos per second and host": photos,
        "MB read per second and host": photos * options.photo_kb / 1e3,
        "checkpoint, GB": size / 1e9,
        "seconds to write it": size / options.disk,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("report", type=Path, help="JSON of `mscaflax compile --output`")
    parser.add_argument("--config", default="coco_stuff256", help="as the report's (default: coco_stuff256)")
    parser.add_argument("--devices", type=int, required=True, help="JAX devices of the whole slice")
    parser.add_argument("--devices_per_host", type=int, default=4, help="(default: 4)")
    parser.add_argument(
        "--share", type=float, default=0.5, help="assumed share of the peak's speed (default: 0.5)"
    )
    parser.add_argument("--photo_kb", type=float, default=145, help="stored photo and map (default: 145)")
    parser.add_argument("--disk", type=float, default=1e9, help="assumed bytes per second (default: 1e9)")
    options = parser.parse_args()
    if not 0 < options.share <= 1:
        parser.error(f"--share is {options.share:g}; it must be above 0 and at most 1")
    report = json.loads(options.report.read_text())
    found = estimate(report, load_config([f"--config={options.config}"]), options)
    print(f"| {options.config}, by the report for {report['topology']} | |\n| --- | ---: |")
    for name, value in found.items():
        print(
            f"| {name} | {value:,.0f} |"
            if value >= 100 or value == int(value)
            else f"| {name} | {value:.3g} |"
        )


if __name__ == "__main__":
    main()
