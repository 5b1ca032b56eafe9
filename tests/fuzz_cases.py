"""What the fuzzer tries: command lines with their files, and requests to the studio."""

import base64
import json
import shutil

import numpy as np
from fuzz_files import mutated

from mscaflax.data import scenes

WORDS = (
    "",
    "0",
    "-1",
    "1e9",
    "nan",
    "inf",
    "1e308",
    "4294967296",
    "9" * 5000,
    f"sky={'9' * 5000}",
    "sky=0,sky=1",
    "0,0",
    "1e30,0",
    "sky=1",
    "sky=9",
    "=",
    "..",
    "~nosuchuser/x",
    "a b",
    "é",
    "\\",
    "None",
)
NAMES = (
    "layout.png", "photo.png", "photo_label.png", "large.png", "strip.png",
    "missing.png", ".", "nowhere/x.png", "classes.json",
)  # fmt: skip
LOAD = "load_exported"  # in the place of a command's name


class Places:
    """A folder with the files of one case."""

    def __init__(self, root, files, rng):
        self.root, self.rng = root, rng
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for name, data in files.items():
            (root / name).write_bytes(mutated(data, rng) if rng.random() < 0.3 else data)

    def name(self, usual):
        return str(self.root / (usual if self.rng.random() < 0.9 else self.rng.choice(NAMES)))

    def workdir(self, usual):
        """The flag that names the model; one in ten names none, or a damaged copy of it."""
        if self.rng.random() < 0.9:
            return f"--workdir={usual}"
        how = self.rng.randrange(3)
        if how == 0:
            return f"--workdir={self.rng.choice(WORDS)}"
        if how == 1:
            return f"--workdir={self.name('photo.png')}"
        # A name of its own: models are kept by name once they are loaded.
        copy = self.root / f"model{self.rng.getrandbits(32):08x}"
        shutil.copytree(usual, copy)
        damaged = self.rng.choice(sorted(path for path in copy.rglob("*") if path.is_file()))
        damaged.write_bytes(mutated(damaged.read_bytes(), self.rng))
        return f"--workdir={copy}"


def flags(choices, rng):
    """Some of the flags, with one of their values or a random word."""
    return [
        f"--{name}={rng.choice(values) if rng.random() < 0.6 else rng.choice(WORDS)}"
        for name, values in choices.items()
        if rng.random() < 0.3
    ]


def synthesize_case(root, files, rng, workdir):
    places = Places(root, files, rng)
    return [
        "synthesize",
        places.workdir(workdir),
        f"--label={places.name('layout.png')}",
        f"--exemplar={places.name('photo.png')}",
        *([f"--exemplar_label={places.name('photo_label.png')}"] if rng.random() < 0.75 else []),
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


def one_of(choices, rng):
    """One of some flags that exclude each other; at times all of them, none of which may then be right."""
    name = rng.choice(sorted(choices))
    return {name: choices[name]} if rng.random() < 0.8 else choices


def blend_case(root, files, rng, workdir):
    places = Places(root, files, rng)
    how = {
        "steps": ["2"],
        "weights": ["0.5,0.5"],
        "ramp": ["horizontal"],
        "weight_map": [str(root / "layout.png")],
        "classes": ["sky=1"],
    }
    labels = [places.name("photo_label.png") if rng.random() < 0.9 else "-" for _ in range(2)]
    return [
        "blend",
        places.workdir(workdir),
        f"--label={places.name('layout.png')}",
        "--exemplar",
        *(places.name("photo.png") for _ in range(2)),
        *(["--exemplar_label", *labels] if rng.random() < 0.75 else []),
        f"--output={places.name(rng.choice(['out.png', 'out.webp', 'out.gif', 'out.jpg']))}",
        *flags(one_of(how, rng) | {"begin": ["-1"], "end": ["2"], "seed": ["3"]}, rng),
    ]


def edit_case(root, files, rng, workdir):
    places = Places(root, files, rng)
    return [
        "edit",
        places.workdir(workdir),
        f"--photo={places.name('photo.png')}",
        f"--photo_label={places.name('photo_label.png')}",
        f"--label={places.name('layout.png')}",
        f"--output={places.name('out.png')}",
        *flags({"margin": ["0", "5", "3000000000"], "seed": ["1"], "step": ["4"]}, rng),
    ]


def extrapolate_case(root, files, rng, workdir):
    places = Places(root, files, rng)
    return [
        "extrapolate",
        places.workdir(workdir),
        f"--photo={places.name('part.png')}",
        *([f"--photo_label={places.name('part_label.png')}"] if rng.random() < 0.75 else []),
        f"--label={places.name('layout.png')}",
        f"--output={places.name('out.png')}",
        *flags({"at": ["0,0", "3,5", "-1,2", "1,1e9"], "seed": ["1"], "step": ["4"]}, rng),
    ]


def segment_case(root, files, rng, workdir):
    places = Places(root, files, rng)
    return [
        "segment",
        places.workdir(workdir),
        f"--photo={places.name('photo.png')}",
        f"--output={places.name('out.png')}",
    ]


def other_case(root, files, rng, workdir):
    """A command that works long where it is right, with a workdir or a dataset that is not."""
    places = Places(root, files, rng)
    wrong = rng.choice([f"--workdir={places.name('photo.png')}", f"--workdir={rng.choice(WORDS)}"])
    nowhere = f"--data_dir={root / 'nowhere'}"
    (root / "results").mkdir()
    return rng.choice(
        [
            ["export", wrong, f"--output={places.name('out.zip')}", *flags({"format": ["savedmodel"]}, rng)],
            ["pack", wrong, f"--output={root / 'packed'}", *flags({"step": ["4"]}, rng)],
            ["evaluate", f"--workdir={workdir}", f"--output={root / 'results'}", nowhere]
            + flags({"pairs": ["4"], "seed": ["1"], "guess_labels": ["0"], "split": ["val"]}, rng),
            ["retrieve", f"--name={rng.choice(WORDS)}", "--split=val", "--candidates=train", nowhere]
            + [f"--output={places.name('out.json')}", *flags({"count": ["2"], "seed": ["1"]}, rng)],
            ["compile", f"--config={rng.choice(WORDS)}", f"--topology={rng.choice(WORDS)}"],
            [rng.choice(WORDS), wrong],
        ]
    )


def load_case(root, files, rng, workdir):
    del workdir
    places = Places(root, {}, rng)
    data = files["model.zip"]
    (places.root / "model.zip").write_bytes(mutated(data, rng) if rng.random() < 0.9 else data)
    return [LOAD, places.name("model.zip")]


def prepare_case(root, files, rng, workdir):
    del workdir
    Places(root, {}, rng)
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
    return [
        "prepare",
        f"--name={'mine' if rng.random() < 0.8 else rng.choice(WORDS)}",
        f"--images={root / 'images'}",
        f"--annotations={root / 'annotations'}",
        f"--classes={root / 'classes.json'}",
        f"--data_dir={root / 'data'}",
        "--workers=1",
        *(["--skip_bad"] if rng.random() < 0.5 else []),
    ]


COMMAND_CASES = (
    *(synthesize_case,) * 5,
    *(blend_case,) * 4,
    *(edit_case, extrapolate_case) * 2,
    *(segment_case, prepare_case, other_case),
)


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


def studio_case(client, files, rng):
    """One request to the studio's application; returns (kind of case, the status)."""

    def part(name):
        data = files[name]
        return mutated(data, rng) if rng.random() < 0.6 else data

    how = rng.randrange(4)
    if how == 0:
        return "studio", client.post("/api/layout", files={"label": part("layout.png")}).status_code
    if how == 1:
        exemplar = {"photo": part("photo.png")}
        if rng.random() < 0.75:
            exemplar["label"] = part("photo_label.png")
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
