"""Pairs per second of the input pipeline on a folder of photos, and the time the first batch takes.

    python benchmarks/pipeline_speed.py --photos=FOLDER [--size=64] [--batch_size=8]
        [--threads=2] [--seconds=10]

FOLDER holds `images/train/NAME.jpg`, `annotations/train/NAME.png` and `classes.json`. Encoded photos are
held in memory, so the disk is not measured.
"""

import argparse
import io
import json
import resource
import time
from pathlib import Path

import numpy as np
from PIL import Image

from mscaflax.data.pipeline import pair_batches


def read_folder(folder: Path, limit: int | None = None) -> tuple[list[dict], int]:
    """Records of the train split (encoded photo, map with the unlabelled id C, name) and C."""
    table = json.loads((folder / "classes.json").read_text())
    num_classes, records = len(table["classes"]), []
    for path in sorted((folder / "images/train").glob("*.jpg"))[:limit]:
        label = np.array(Image.open(folder / "annotations/train" / f"{path.stem}.png"))
        label[label == table.get("ignore", 255)] = num_classes
        png = io.BytesIO()
        Image.fromarray(label).save(png, "PNG")
        records.append({"image": path.read_bytes(), "label": png.getvalue(), "name": path.stem})
    return records, num_classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    records, num_classes = read_folder(args.photos)
    start = time.perf_counter()
    batches = pair_batches(
        records, size=args.size, num_classes=num_classes, batch_size=args.batch_size, seed=0,
        threads=args.threads,
    )  # fmt: skip
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
    print(f"{len(records)} photos, {args.size}x{args.size}, batch {args.batch_size}, {args.threads} threads")
    print(f"{count / wall:.0f} pairs/s; {1000 * cpu / count:.2f} ms of CPU per pair")
    print(f"first batch after {first:.2f} s; peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
