"""Images per second of the scene renderer on one core: `python benchmarks/scenes_speed.py [height ...]`."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import sys
import time

from mscaflax.data.scenes import render, scene


def main() -> None:
    for height in [int(a) for a in sys.argv[1:]] or [64, 128]:
        pairs = [scene("train", i) for i in range(100)]
        start = time.process_time()
        for layout, style in pairs:
            render(layout, style, (height, 2 * height))
        seconds = time.process_time() - start
        print(f"{height}x{2 * height}: {len(pairs) / seconds:.1f} images/s")


if __name__ == "__main__":
    main()
