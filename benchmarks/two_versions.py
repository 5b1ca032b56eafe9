"""Is the train step of one checkout slower than that of another? Two trainings that take turns.

python benchmarks/two_versions.py 'OLD/.venv/bin/mscaflax train --config=scenes64 --workdir=runs/old ...' \
    'NEW/.venv/bin/mscaflax train --config=scenes64 --workdir=runs/new ...' [--rounds=20]

Both commands have the same --config.train.log_every, and more steps than they will get to. One of the two is
stopped (SIGSTOP) while the other goes on to its next line in the log, so that both see the same moments of a
noisy machine. Which of them begins alternates. Prints seconds from line to line and the ratios, pair by pair.
"""

import argparse
import contextlib
import math
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time

from rich.console import Console
from rich.progress import track

# "step 10 of 65  10.6 pairs/s", or clu's own line: "[10] ..., train/pairs_per_second=10.6"
LOGGED = re.compile(r"step (\d+) of \d+  .*pairs/s|\[(\d+)\] .*pairs_per_second=")
WARM_UP = 2  # rounds that are not counted: the first lines hold the compiler, and batches read ahead


class Training:
    """A training in a process group of its own, which moves only between `until_next_line` and the line."""

    def __init__(self, command):
        self.command = command
        self.process = subprocess.Popen(
            shlex.split(command),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def until_next_line(self):
        """Seconds from here to the next line of the log with a speed in it."""
        start = time.perf_counter()
        self._signal(signal.SIGCONT)
        last = ""
        for line in self.process.stderr:
            if LOGGED.search(line):
                seconds = time.perf_counter() - start
                self._signal(signal.SIGSTOP)
                return seconds
            last = line.strip() or last
        sys.exit(f"{self.command}\nended before its turns did: {last}")

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number):
        os.killpg(self.process.pid, number)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("old", help="a command of the older checkout")
    parser.add_argument("new", help="the same of the newer one")
    parser.add_argument("--rounds", type=int, default=20, help="at least 2")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds must be at least 2")
    seconds = {"old": [], "new": []}
    with contextlib.ExitStack() as stack:
        trainings = {}
        for name in seconds:
            trainings[name] = Training(getattr(options, name))
            stack.callback(trainings[name].end)
            trainings[name].until_next_line()
        rounds = range(-WARM_UP, options.rounds)
        for index in track(rounds, description="Rounds", console=Console(stderr=True)):
            for name in list(seconds)[:: 1 if index % 2 else -1]:
                took = trainings[name].until_next_line()
                if index >= 0:
                    seconds[name].append(took)
    ratios = [new / old for old, new in zip(*seconds.values(), strict=True)]
    logs = [math.log(ratio) for ratio in ratios]
    mean, error = statistics.mean(logs), statistics.stdev(logs) / len(logs) ** 0.5
    low, middle, high = (math.exp(mean + z * error) for z in (-1.96, 0, 1.96))
    print(f"| of {options.rounds} rounds | least | median | most |\n| --- | ---: | ---: | ---: |")
    for title, values in [*((f"{name}, s", x) for name, x in seconds.items()), ("new / old", ratios)]:
        print(f"| {title} | {min(values):.3f} | {statistics.median(values):.3f} | {max(values):.3f} |")
    print(f"\nGeometric mean of the ratios: {middle:.3f}, 95% interval {low:.3f} to {high:.3f}.")


if __name__ == "__main__":
    main()
