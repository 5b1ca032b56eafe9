"""Seconds of exemplar retrieval, n targets among n candidates.

python benchmarks/retrieval_speed.py [n=5000] [classes=182]

Made label maps of 480×640 pixels, as COCO's are, in blocks of 32×32. It does what `mscaflax retrieve` does
after reading its files; the ranking is lazy, so its time is the drawing's.
"""

import sys
import time

import numpy as np

from mscaflax.evaluation.retrieval import descriptors, draw_exemplars, rank


def main() -> None:
    given = [int(argument) for argument in sys.argv[1:]]
    n, classes = given + [5000, 182][len(given) :]

    def label_maps():
        rng = np.random.default_rng(0)
        for _ in range(n):
            yield rng.integers(0, classes + 1, (15, 20), np.int32).repeat(32, 0).repeat(32, 1)

    names = [f"{index:06d}" for index in range(n)]
    marks = [time.perf_counter()]
    queries = descriptors(label_maps(), classes)
    marks.append(time.perf_counter())
    nearest = rank(queries, queries, np.arange(n), names)
    marks.append(time.perf_counter())
    draw_exemplars(nearest, names, 1, 0)
    marks.append(time.perf_counter())
    seconds = dict(zip(("descriptors", "ranking", "drawing"), np.diff(marks), strict=True))
    print(
        ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()),
        f"in all {sum(seconds.values()):.1f} s",
    )


if __name__ == "__main__":
    main()
