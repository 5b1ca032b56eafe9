"""Seconds that someone waits before the studio's page, as a Markdown table.

python benchmarks/studio_speed.py [--workdir=DIR] [--port=N] [--pictures=21]

Starts `mscaflax studio` and asks it as its page does. The first picture of a size waits for the compiler,
unless an earlier start has left its programs: with XDG_CACHE_HOME at an empty folder none has. Needs the
extras `studio` and `test`.
"""

import argparse
import base64
import contextlib
import json
import re
import statistics
import subprocess
import sys
import time

import httpx2

_PATIENCE = 1200  # seconds


def url_of(line):
    """The address in the line that `mscaflax studio` prints; None where there is none."""
    found = re.search(r"The studio is at (http://\S+)", line)
    return found and found[1]


def form_of(layout, exemplar, seed, stroke=0):
    """The form of a request for a picture, as {name: (file name, content)}.

    Args:
      layout, exemplar: as the studio's /api/layouts and /api/exemplars have them.
      seed: of the texture.
      stroke: of so many pixels the id is another one, from the upper left on.
    """
    label = bytearray(base64.b64decode(layout["label"]))
    label[:stroke] = bytes((id + 1) % 2 for id in label[:stroke])
    sides = [{key: value[key] for key in ("width", "height")} for value in (layout, exemplar)]
    request = {"layout": sides[0], "exemplars": sides[1:], "weights": [1], "seed": seed}
    return {
        "request": (None, json.dumps(request)),
        "layout": ("layout", bytes(label)),
        "photo0": ("photo", base64.b64decode(exemplar["photo"])),
        "label0": ("label", base64.b64decode(exemplar["label"])),
    }


def table_of(rows):
    """A Markdown table.

    Args:
      rows: [(canvas, seconds of the first picture, [seconds] with another seed, [seconds] after a stroke)].
    """
    lines = [
        "| canvas | first picture, s | another seed, median ms | another stroke, median ms |",
        "|---|---|---|---|",
    ]
    for canvas, first, seeds, strokes in rows:
        medians = (f"{1000 * statistics.median(times):.0f}" for times in (seeds, strokes))
        lines.append(f"| {canvas} | {first:.1f} | {' | '.join(medians)} |")
    return "\n".join(lines)


def ask(client, method, path, **given):
    """(seconds, the JSON answer) of a request."""
    begin = time.perf_counter()
    response = client.request(method, path, **given)
    response.raise_for_status()
    return time.perf_counter() - begin, response.json()


@contextlib.contextmanager
def started(options):
    """A studio in a process of its own: its address, once the page answers."""
    command = [sys.executable, "-m", "mscaflax", "studio", f"--port={options.port}"]
    command += [f"--workdir={options.workdir}"] if options.workdir else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as studio:
        try:
            url = next(filter(None, map(url_of, studio.stdout)), None)
            if url is None:
                raise SystemExit("the studio did not start")
            httpx2.get(url, timeout=_PATIENCE).raise_for_status()
            yield url
        finally:
            studio.terminate()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", help="of `mscaflax train` (default: the model that ships)")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--pictures", type=int, default=21, help="of each kind and size (default: 21)")
    options = parser.parse_args()
    begin = time.perf_counter()
    with started(options) as url, httpx2.Client(base_url=url, timeout=_PATIENCE) as client:
        page = time.perf_counter() - begin
        sizes = ask(client, "GET", "/api/studio")[1]["sizes"]
        exemplar = ask(client, "GET", "/api/exemplars")[1][0]
        layouts = [ask(client, "GET", f"/api/layouts?size={i}")[1][0] for i in range(len(sizes))]
        layouts.sort(key=lambda layout: layout["width"] * layout["height"])
        firsts = []
        for layout in layouts:
            firsts.append(ask(client, "POST", "/api/picture", files=form_of(layout, exemplar, 0))[0])
            if len(firsts) == 1:
                first = time.perf_counter() - begin
        # Compiling ahead holds up a few of these, which a median does not see.
        rows = []
        for layout, seconds in zip(layouts, firsts, strict=True):
            forms = [
                [form_of(layout, exemplar, seed) for seed in range(1, options.pictures + 1)],
                [form_of(layout, exemplar, 0, stroke) for stroke in range(1, options.pictures + 1)],
            ]
            times = [[ask(client, "POST", "/api/picture", files=form)[0] for form in kind] for kind in forms]
            rows.append((f"{layout['width']}×{layout['height']}", seconds, *times))
    print(f"The page answers {page:.1f} s after the start, the first picture is there after {first:.1f} s.\n")
    print(table_of(rows))


if __name__ == "__main__":
    main()
