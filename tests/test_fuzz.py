"""Mistaken and hostile files and arguments: a sample; `python tests/fuzz.py` runs thousands."""

import functools
import importlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from starlette.testclient import TestClient

from mscaflax import Synthesizer
from mscaflax.apps.studio.server import build_app
from mscaflax.apps.studio.service import Studio
from mscaflax.training import model, segmenter


@pytest.fixture
def fuzz(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("fuzz").fuzz


@pytest.mark.slow
def test_no_input_brings_a_traceback_or_a_file_beside(fuzz, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "load_model", functools.cache(model.load_model))
    workdir = tmp_path / "model"
    shutil.copytree(tiny_run, workdir)
    synthesizer = Synthesizer.from_workdir(str(workdir))
    # The toy run has no segmenter, and with it all that begins with a guess would end.
    guesses = SimpleNamespace(
        classes=synthesizer.classes,
        scores={},
        predict=lambda images: np.broadcast_to(np.arange(images.shape[2]) % 12, images.shape[:3]),
    )
    monkeypatch.setattr(segmenter, "load_segmenter", lambda *_, **__: guesses)
    app = build_app(Studio(synthesizer), warm=False)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        outcomes, slowest = fuzz(150, 1, workdir, client, tmp_path / "case")
    commands = {"synthesize", "blend", "edit", "extrapolate", "segment", "prepare"}
    assert outcomes.keys() == commands | {"studio", "picture", "other"}
    # Some of it is right, or nothing would be tried beyond the reading of files.
    right = {kind: row.get(0, 0) + row.get(200, 0) for kind, row in outcomes.items() if kind != "other"}
    assert all(right.values()), outcomes
    assert slowest[0] > 0 and slowest[1].startswith("1/")


def synthesize_case(root, files, rng, workdir):
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    (root / "photo.png").write_bytes(files["photo.png"])
    return ["synthesize", f"--workdir={workdir}", f"--output={root / 'out.png'}"]


def prepare_case(root, files, rng, workdir):
    synthesize_case(root, files, rng, workdir)
    return ["prepare", "--name=mine", f"--data_dir={root / 'data'}"]


def output(line):
    return Path(line[-1].removeprefix("--output="))


def well(line):
    output(line).write_bytes(b"picture")
    return 0


def then(action, status=0):
    """A command that writes its output, and does something else."""

    def run(line):
        well(line)
        action(line)
        return status

    return run


def build(place, status=0):
    """What `prepare` writes, and a file at `place` in its data_dir."""

    def run(line):
        data = output(line[:-1] + [line[-1].replace("--data_dir", "--output")])
        (data / "mine").mkdir(parents=True)
        (data / ".mine.lock").touch()
        (data / place).touch()
        return status

    return run


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("Traceback (most recent call last):\nKeyError: 'key'\nmscaflax: error: it failed\n", "a traceback"),
        ("", "it fails, and says ''"),
        ("mscaflax: error: it failed\nand more of it\n", "it fails, and says"),
    ],
)
def test_the_fuzzer_reads_what_is_said(said, message, fuzz):
    check_words = importlib.import_module("fuzz").check_words
    with pytest.raises(AssertionError, match=message):
        check_words(2, said)
    with pytest.raises(AssertionError, match="status 1"):
        check_words(1, "mscaflax: error: it failed")
    check_words(2, "a warning\nmscaflax: error: it failed\n")
    check_words(0, "a warning\n")


def test_the_fuzzer_tries_damaged_exports(fuzz, tmp_path):
    module = importlib.import_module("fuzz")
    more = {"model.zip": b"PK no zip"}
    outcomes, _ = fuzz(4, 0, "model", None, tmp_path / "case", cases=[module.load_case], more=more)
    assert outcomes == {"load": {2: 4}}


@pytest.mark.parametrize("run", [well, lambda line: 2])
def test_the_fuzzer_lets_pass_what_is_right(run, fuzz, tmp_path):
    outcomes, _ = fuzz(3, 0, "model", None, tmp_path / "case", cases=[synthesize_case], run=run)
    assert list(outcomes) == ["synthesize"] and list(outcomes["synthesize"].values()) == [3]


def test_the_fuzzer_lets_prepare_fill_its_dataset(fuzz, tmp_path):
    outcomes, _ = fuzz(1, 0, "model", None, tmp_path / "case", cases=[prepare_case], run=build("mine/info"))
    assert outcomes == {"prepare": {0: 1}}


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (then(lambda line: Path("stray").touch()), "status 0, and changed .*/here/stray"),
        (then(lambda line: Path.home().joinpath("stray").touch()), "changed .*home.stray"),
        (then(lambda line: tempfile.mkdtemp(prefix="stray")), "changed .*/temporary/stray"),
        (then(lambda line: output(line).with_name(".out.png.part").touch()), "changed .*/case/.out.png.part"),
        (
            then(lambda line: output(line).with_name("photo.png").write_bytes(b"")),
            "changed .*/case/photo.png",
        ),
        (then(lambda line: output(line).with_name("photo.png").unlink()), "changed .*/case/photo.png"),
        (then(lambda line: Path("../model/weights").write_bytes(b"other")), "changed .*/model/weights"),
        (then(lambda line: None, status=2), "status 2, and changed .*/case/out.png"),
        (lambda line: 0, "status 0 without the output .*/case/out.png"),
        (lambda line: {}["key"], "KeyError: 'key'"),
    ],
)
def test_the_fuzzer_finds(run, message, fuzz, tmp_path, limit=120):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_bytes(b"those")
    here = os.getcwd()
    with pytest.raises(AssertionError, match=f"^case 7/0: .*{message}.*--output=.*case/out.png"):
        fuzz(1, 7, "model", None, tmp_path / "case", limit=limit, cases=[synthesize_case], run=run)
    assert os.getcwd() == here and not tempfile.gettempdir().startswith(str(tmp_path))


def test_the_fuzzer_finds_what_hangs(fuzz, tmp_path):
    message = r"Late: it takes more than 0\.5 s"
    test_the_fuzzer_finds(lambda line: time.sleep(30), message, fuzz, tmp_path, limit=0.5)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (build("other"), "status 0, and changed .*/data/other"),
        (build("mine/part", status=2), "status 2, and changed .*/data/mine, .*/data/mine/part"),
    ],
)
def test_the_fuzzer_finds_what_prepare_leaves_beside(run, message, fuzz, tmp_path):
    with pytest.raises(AssertionError, match=message):
        fuzz(1, 7, "model", None, tmp_path / "case", cases=[prepare_case], run=run)


def test_the_fuzzer_finds_a_file_of_the_studio(fuzz, tmp_path):
    def answer(*arguments, **options):
        Path("upload").touch()
        return SimpleNamespace(status_code=404)

    client = SimpleNamespace(get=answer, post=answer, request=answer)
    # The seed decides on the request: this one takes no example, which this client does not have.
    with pytest.raises(AssertionError, match="^case 1/4: .*the studio changed .*/here/upload$"):
        fuzz(5, 1, "model", client, tmp_path / "case", cases=[synthesize_case], run=well)


def test_the_same_seed_gives_the_same_cases(fuzz, tmp_path):
    def lines(folder):
        seen = []
        (folder / "model").mkdir(parents=True)
        (folder / "model/weights").write_bytes(b"those")
        fuzz(4, 5, folder / "model", None, folder / "case", run=lambda line: seen.append(line) or 2)
        return [[item.replace(str(folder), "") for item in line] for line in seen]

    first = lines(tmp_path / "one")
    assert len(first) == 4 and first == lines(tmp_path / "two")
