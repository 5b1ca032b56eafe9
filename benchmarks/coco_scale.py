"""What preparing COCO-Stuff in full would take, from a sample in its official layout.

python benchmarks/coco_scale.py --source=coco_stuff [--images=2000]

The sample's photos and label maps are linked again and again under new names, until there are so many
images; `mscaflax prepare --name=coco_stuff` then builds a dataset of them, and of a tenth of them, so that
the start does not count. Seconds and bytes per image, times 123,287 images, are the estimate. The sample may
be smaller or larger than the average of the full set: its zip files have 19.3 GB (photos) and 0.69 GB (maps).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FULL = {"train2017": 118_287, "val2017": 5_000}


def link_copies(source, target, images):
    """The official layout with so many images in all, a twentieth of them for validation."""
    wanted = {"train2017": images - images // 20, "val2017": images // 20}
    for split, count in wanted.items():
        photos = sorted((source / split).glob("*.jpg"))
        for folder in (target / split, target / "stuffthingmaps" / split):
            folder.mkdir(parents=True)
        for index in range(count):
            photo = photos[index % len(photos)]
            label = source / "stuffthingmaps" / split / f"{photo.stem}.png"
            os.symlink(photo.resolve(), target / split / f"{index:012d}.jpg")
            os.symlink(label.resolve(), target / "stuffthingmaps" / split / f"{index:012d}.png")


def prepare(source, images):
    """(seconds, bytes of the dataset) of a build of so many images."""
    with tempfile.TemporaryDirectory() as place:
        copies, data = Path(place) / "coco_stuff", Path(place) / "data"
        link_copies(source, copies, images)
        begin = time.perf_counter()
        line = ["prepare", "--name=coco_stuff", f"--source={copies}", f"--data_dir={data}"]
        subprocess.run([sys.executable, "-m", "mscaflax", *line], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - begin
        return seconds, sum(file.stat().st_size for file in data.rglob("*") if file.is_file())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--source", type=Path, required=True, help="a sample in COCO-Stuff's official layout")
    parser.add_argument("--images", type=int, default=2000, help="of the larger build (default: 2000)")
    options = parser.parse_args()
    if options.images <= 20:
        parser.error(f"--images is {options.images}: it must be more than the 20 of the smaller build")
    for split in ("train2017", "val2017"):
        if not any((options.source / split).glob("*.jpg")):
            parser.error(f"{options.source / split} holds no photo")
    few = max(options.images // 10, 20)
    few_seconds, few_bytes = prepare(options.source, few)
    seconds, size = prepare(options.source, options.images)
    more = options.images - few
    per_image = (seconds - few_seconds) / more
    bytes_per_image = (size - few_bytes) / more
    full = sum(FULL.values())
    print(
        f"{few} images: {few_seconds:.1f} s; {options.images} images: {seconds:.1f} s, {os.cpu_count()} cores"
    )
    print(f"per image {per_image * 1e3:.2f} ms and {bytes_per_image / 1e3:.0f} kB")
    minutes, gigabytes = per_image * full / 60, bytes_per_image * full / 1e9
    print(f"estimate for {full:,} images: {minutes:.0f} minutes, {gigabytes:.1f} GB")


if __name__ == "__main__":
    main()
