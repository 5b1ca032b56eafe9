"""Images per second of the scene renderer on one core: `python benchmarks/scenes_speed.py [height ...]`."""

import sys
import time

from mscaflax.data.scenes import render, scene


def main() -> None:
    scenes = [scene("train", index) for index in range(100)]
    for height in [int(argument) for argument in sys.argv[1:]] or [64, 128]:
        seconds = []
        for _ in range(3):
            # Processor time, of all threads: what one core would need.
            start = time.process_time()
            for layout, style in scenes:
                render(layout, style, (height, 2 * height))
            seconds.append(time.process_time() - start)
        print(f"{height}x{2 * height}: {len(scenes) / min(seconds):.1f} images/s")


if __name__ == "__main__":
    main()
