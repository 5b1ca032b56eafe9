"""Pairs per second of the input pipeline on a prepared dataset, its CPU time and memory.

python benchmarks/pipeline_speed.py --name=NAME [--data_dir=DIR] [--split=train] [--size=64]
    [--batch_size=8] [--threads=2] [--seconds=10]
"""

import argparse
import resource
import time

from mscaflax.data.datasets import open_dataset
from mscaflax.data.pipeline import pair_batches


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--name", required=True)
    parser.add_argument("--data_dir")
    parser.add_argument("--split", default="train")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    dataset = open_dataset(args.name, args.data_dir)
    source = dataset.source(args.split)
    start = time.perf_counter()
    batches = pair_batches(
        source,
        size=args.size,
        num_classes=dataset.classes.num_classes,
        batch_size=args.batch_size,
        seed=0,
        threads=args.threads,
    )
    next(batches)
    first = time.perf_counter() - start
    for _ in range(4):
        next(batches)
    start, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < args.seconds:
        next(batches)
        count += args.batch_size
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{args.name}: {len(source)} photos; {args.size}x{args.size}, batch {args.batch_size}")
    print(f"{count / wall:.0f} pairs/s on {args.threads} threads, {1000 * cpu / count:.2f} ms of CPU a pair")
    print(f"first batch after {first:.2f} s; peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
