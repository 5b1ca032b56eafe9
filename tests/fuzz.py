"""Random and mutated files and arguments, from a seed: what users give by mistake, and worse.

python tests/fuzz.py [--count=2000] [--seed=0]      # with the model that ships

Each case goes to a command, in this process, or to the studio's application. A case fails if anything but a
UserError comes out of a command, if the studio answers with a status of 500 or more, or if a file appears
beside the one that was asked for.
"""

import argparse
import base64
import io
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from fuzz_files import mutated, originals

from mscaflax import cli
from mscaflax.data import scenes

WORDS = (
    "",
    "0",
    "-1",
    "1e9",
    "nan",
    "inf",
    "4294967296",
    "0,0",
    "sky=1",
    "sky=9",
    "=",
    "..",
    "a b",
    "é",
    "\\",
    "None",
)
NAMES = ("layout.png", "photo.png", "photo_label.png", "missing.png", ".", "nowhere/x.png", "classes.json")


class Places:
    """A folder with the files of one case, and what a command may add to it."""

    def __init__(self, root, files, rng):
        self.root, self.rng = root, rng
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for name, data in files.items():
            (root / name).write_bytes(mutated(data, rng) if rng.random() < 0.4 else data)
        self.before = self.listed()

    def listed(self):
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}

    def name(self, usual):
        return str(self.root / (usual if self.rng.random() < 0.8 else self.rng.choice(NAMES)))

    def check(self, allowed):
        added = self.listed() - self.before - set(allowed)
        assert not added, f"written without being asked for: {sorted(added)}"


def flags(choices, rng):
    """Some of the flags, with one of their values or a random word."""
    return [
        f"--{name}={rng.choice(values) if rng.random() < 0.6 else rng.choice(WORDS)}"
        for name, values in choices.items()
        if rng.random() < 0.3
    ]


def synthesize_case(root, files, rng, workdir):
    places = Places(root, files, rng)
    line = [
        "synthesize",
        *workdir,
        f"--label={places.name('layout.png')}",
        f"--exemplar={places.name('photo.png')}",
        f"--exemplar_label={places.name('photo_label.png')}",
        f"--output={places.name('out.png')}",
        *flags(
            {
                "seed": ["1"],
                "attention": [str(root / "regions.png")],
                "attention_scale": ["1"],
                "attention_regions": ["3"],
                "step": ["4"],
            },
            rng,
        ),
    ]
    return line, lambda: places.check(NAMES + ("out.png", "regions.png"))


def blend_case(root, files, rng, workdir):
    places = Places(root, files, rng)
    photos = [places.name("photo.png") for _ in range(2)]
    labels = [places.name("photo_label.png") for _ in range(2)]
    line = [
        "blend",
        *workdir,
        f"--label={places.name('layout.png')}",
        "--exemplar",
        *photos,
        "--exemplar_label",
        *labels,
        f"--output={places.name(rng.choice(['out.png', 'out.webp', 'out.gif', 'out.jpg']))}",
        *flags(
            {
                "steps": ["2"],
                "weights": ["0.5,0.5"],
                "ramp": ["horizontal"],
                "weight_map": [str(root / "layout.png")],
                "classes": ["sky=1"],
                "begin": ["-1"],
                "end": ["2"],
                "seed": ["3"],
            },
            rng,
        ),
    ]
    return line, lambda: places.check(NAMES + ("out.png", "out.webp", "out.gif"))


def prepare_case(root, files, rng, workdir):
    del workdir
    places = Places(root, {}, rng)
    for split in ("train", "val"):
        for kind, source in (("images", "photo.png"), ("annotations", "photo_label.png")):
            folder = root / kind / split
            folder.mkdir(parents=True)
            for index in range(4):
                data = files[source]
                name = f"{index}.png" if rng.random() < 0.95 else f"{rng.choice(WORDS[1:8])}.png"
                (folder / name.replace("/", "_")).write_bytes(
                    mutated(data, rng) if rng.random() < 0.03 else data
                )
    classes = {
        "classes": list(scenes.CLASS_NAMES),
        "palette": np.array(scenes.PALETTE).tolist(),
        "ignore": 255,
    }
    if rng.random() < 0.3:
        classes[rng.choice(list(classes))] = rng.choice([None, [], "sky", [1], [[1, 2]], -1, 1e9, {}])
    text = json.dumps(classes).encode()
    (root / "classes.json").write_bytes(mutated(text, rng) if rng.random() < 0.1 else text)
    places.before = places.listed()
    line = [
        "prepare",
        f"--name={'mine' if rng.random() < 0.8 else rng.choice(WORDS)}",
        f"--images={root / 'images'}",
        f"--annotations={root / 'annotations'}",
        f"--classes={root / 'classes.json'}",
        f"--data_dir={root / 'data'}",
        "--workers=1",
        *(["--skip_bad"] if rng.random() < 0.5 else []),
    ]

    def check():
        added = {name for name in places.listed() - places.before if not name.startswith("data")}
        assert not added, f"written without being asked for: {sorted(added)}"

    return line, check


def right_form(client, rng):
    """A request for a picture that is right: (what its text says, its files {name: bytes})."""
    # One size of the canvas and of the exemplars: each other one is compiled anew.
    layout = rng.choice(client.get("/api/layouts?size=0").json())
    exemplars = rng.sample(client.get("/api/exemplars").json(), rng.choice([1, 2]))
    request = {
        "layout": {side: layout[side] for side in ("width", "height")},
        "exemplars": [{side: exemplar[side] for side in ("width", "height")} for exemplar in exemplars],
        "weights": [1 / len(exemplars)] * len(exemplars),
        "seed": 0,
    }
    files = {"layout": layout["label"]}
    for index, exemplar in enumerate(exemplars):
        files |= {f"{name}{index}": exemplar[name] for name in ("photo", "label")}
    return request, {name: base64.b64decode(text) for name, text in files.items()}


# What the text of a request may say instead, right and wrong.
FIELDS = {
    "layout": (
        {"width": 64, "height": 64},
        {"width": 48, "height": 0},
        {"width": -1, "height": 32},
        {"width": "x"},
        {"width": 1e9, "height": 32},
        None,
    ),
    "exemplars": ([], None, [{}], [[]], [{"width": 32, "height": 32}], [{}] * 5),
    "weights": ([1], [-0.5, 1.5], [0, 0], [10, -10], [], ["a"], [11], [float("1e999")], [10**400], None),
    "seed": (1, 2**32 - 1, -1, 2**40, 0.5, True, "x", None),
}


def changed_file(data, rng):
    """Other bytes; some are as good as those of a label map."""
    how = rng.randrange(4)
    if how == 0:
        return bytes(rng.choices(range(len(scenes.CLASS_NAMES) + 1), k=len(data)))
    if how == 1:
        place = rng.randrange(len(data))
        return data[:place] + rng.randbytes(1) + data[place + 1 :]
    return mutated(data, rng)


def picture_form(client, rng):
    """A request for a picture that is right but for a field or two; some are right altogether."""
    request, files = right_form(client, rng)
    places = [(part, name) for part in (request, files) for name in part]
    for part, name in rng.sample(places, rng.choice([0, 1, 1, 2])):
        if rng.random() < 0.1:
            del part[name]
        elif part is request:
            request[name] = rng.choice(FIELDS[name])
        else:
            files[name] = changed_file(files[name], rng)
    body = json.dumps(request) if rng.random() < 0.95 else rng.choice(["", "{", "[]", "1"])
    return {"request": (None, body)} | {name: (name, data) for name, data in files.items()}


CASES = (synthesize_case,) * 5 + (blend_case,) * 4 + (prepare_case,)


def run_command(line):
    """The exit status of a command; what it prints is dropped. Anything but a UserError passes through."""
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    try:
        return cli.main(line)
    except SystemExit as ended:  # argparse's --help
        return ended.code
    finally:
        sys.stdout, sys.stderr = out, err


def studio_case(client, files, rng):
    """One request to the studio's application; returns (kind of case, the status)."""

    def part(name):
        data = files[name]
        return mutated(data, rng) if rng.random() < 0.6 else data

    how = rng.randrange(4)
    if how == 0:
        return "studio", client.post("/api/layout", files={"label": part("layout.png")}).status_code
    if how == 1:
        exemplar = {"photo": part("photo.png"), "label": part("photo_label.png")}
        return "studio", client.post("/api/exemplar", files=exemplar).status_code
    if how == 2:
        return "picture", client.post("/api/picture", files=picture_form(client, rng)).status_code
    method = rng.choice(["GET", "POST", "PUT", "DELETE"])
    outside = ("/page/%2e%2e/server.py", "/page/%2e%2e%2f%2e%2e%2fblend.py", "/page//etc/passwd")
    path = rng.choice(["/", "/api/layouts?size=9", "/api/layouts", *outside, "/x"])
    content = rng.randbytes(rng.randrange(100))
    status = client.request(method, path, content=content).status_code
    assert path not in outside or status in (404, 405), f"{path} is answered with {status}"
    return "studio", status


def one_case(index, rng, files, workdir, client, root):
    """(kind of case, its status); raises what must not come out."""
    if index % 5 == 4:
        kind, status = studio_case(client, files, rng)
        assert status < 500, f"the studio answers {status}"
        return kind, status
    make = rng.choice(CASES)
    line, check = make(root / "case", files, rng, workdir)
    try:
        status = run_command(line)
        check()
    except Exception as error:
        error.add_note(str(line))
        raise
    return make.__name__.removesuffix("_case"), status


def fuzz(count, seed, workdir, client, root):
    """Runs `count` cases; returns {kind of case: {outcome: number}}.

    Args:
      count: how many; a fifth go to the studio.
      seed: of all of them.
      workdir: arguments that name a model, [] for the one that ships.
      client: a Starlette test client of the studio.
      root: a folder that may be emptied.

    Raises:
      AssertionError: cases failed; the message holds what repeats each of them.
    """
    files, outcomes, failures = originals(), {}, []
    for index in range(count):
        rng = random.Random(f"{seed}/{index}")
        try:
            kind, status = one_case(index, rng, files, workdir, client, root)
        except Exception as error:
            notes = " ".join(getattr(error, "__notes__", ()))
            failures.append(f"case {seed}/{index}: {type(error).__name__}: {error} {notes}".rstrip())
            continue
        row = outcomes.setdefault(kind, {})
        row[status] = row.get(status, 0) + 1
    assert not failures, "\n".join(failures)
    return outcomes


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from starlette.testclient import TestClient

    from mscaflax import Synthesizer
    from mscaflax.apps.studio.server import build_app
    from mscaflax.apps.studio.service import Studio

    app = build_app(Studio(Synthesizer.pretrained()), warm=False)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as root, TestClient(app, base_url="http://127.0.0.1:7860") as client:
        load_once()
        outcomes = fuzz(options.count, options.seed, [], client, Path(root))
    for kind, row in sorted(outcomes.items()):
        print(f"{kind:12}", ", ".join(f"status {status}: {number}" for status, number in sorted(row.items())))
    print(f"{options.count} cases in {time.perf_counter() - begin:.0f} s, none failed")


def load_once():
    """Commands load their model anew; of a thousand, one load is enough."""
    import functools

    from mscaflax.training import model

    model.load_model = functools.cache(model.load_model)


if __name__ == "__main__":
    main()
