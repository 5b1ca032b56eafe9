import hashlib
import importlib.util
import io
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from mscaflax.cli import main
from mscaflax.data.classes import ClassTable
from mscaflax.evaluation import protocol
from mscaflax.evaluation.protocol import Judges

CLASSES = ClassTable(("sky", "wall", "door"), ((0, 0, 255), (200, 100, 50), (90, 60, 20)))


def photo(seed):
    rng = np.random.default_rng(seed)
    encoded = []
    for array in (rng.integers(0, 256, (24, 40, 3)), rng.integers(0, 4, (24, 40))):
        file = io.BytesIO()
        Image.fromarray(array.astype(np.uint8)).save(file, "PNG")
        encoded.append(file.getvalue())
    return {"image": encoded[0], "label": encoded[1], "name": f"photo{seed}"}


class Model:
    """A stand-in for a trained model: the exemplar's mean colour, darker by the sky of its map."""

    config = ConfigDict(
        {"data": {"name": "toy", "data_dir": "", "val_split": "val", "size": 16, "side_range": (0.5, 1.0)}}
    )
    classes = CLASSES
    step = 3
    vgg = None

    def over(self, mesh):
        return self

    def generate(self, label, exemplar, exemplar_label, seed=0):
        sky = (exemplar_label == 0).mean((1, 2))[:, None, None, None]
        return np.broadcast_to(exemplar.mean((1, 2), keepdims=True) * (1 - sky) - sky, exemplar.shape)


class Guesser:
    """A stand-in for a segmenter, which sees the sky everywhere."""

    step, scores = 1, {"mean_iou": 0.1}

    def __init__(self, seed):
        self.seed = seed

    def predict(self, images):
        return np.zeros(images.shape[:3], np.int32)


@pytest.fixture
def evaluate(monkeypatch, tmp_path):
    opened = []

    def open_dataset(name, data_dir=None):
        opened.append((name, data_dir))
        photos = [photo(i) for i in range(run.photos)]
        return types.SimpleNamespace(
            name=name,
            classes=CLASSES,
            fingerprint=run.fingerprint,
            source=lambda split: photos,
            splits={"val": len(photos)},
        )

    def load_model(workdir, step=None):
        model = Model()
        model.config = model.config.copy_and_resolve_references()
        if run.sizes:
            model.config.data.size = run.sizes.pop(0)
        return model

    checkpoint = types.ModuleType("mscaflax.training.model")
    checkpoint.load_model = load_model
    monkeypatch.setitem(sys.modules, checkpoint.__name__, checkpoint)
    monkeypatch.setattr("mscaflax.data.datasets.open_dataset", open_dataset)
    segmenters = types.ModuleType("mscaflax.training.segmenter")
    segmenters.find_segmenter = lambda workdir, seed=None: run.judge
    segmenters.load_segmenter = lambda workdir, seed, vgg: Guesser(seed)
    monkeypatch.setitem(sys.modules, segmenters.__name__, segmenters)
    monkeypatch.setattr(protocol, "load_judges", lambda *args: Judges())

    def run(output, *arguments):
        return main(["evaluate", f"--workdir={tmp_path}", f"--output={tmp_path / output}", *arguments])

    run.opened, run.photos, run.fingerprint, run.judge, run.sizes = opened, 4, "f", None, []
    return run


def test_the_same_command_gives_the_same_files_but_for_the_seconds(evaluate, tmp_path, capsys):
    reports = []
    for output in ("first", "nested/second"):
        assert evaluate(output, "--pairs=5", "--batch_size=2", "--data_dir=somewhere") == 0
        report = json.loads((tmp_path / output / "metrics.json").read_text())
        assert report.pop("seconds") > 0
        reports.append(report)
    assert reports[0] == reports[1]
    for file in ("pairs.json", "values.json", "grid.png", "table.md"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "nested/second" / file).read_bytes()
    assert evaluate.opened == [("toy", "somewhere")] * 2
    assert reports[0]["step"] == 3 and reports[0]["config"]["data"]["size"] == 16
    assert reports[0]["pairs"]["n"] == reports[0]["metrics"]["cross"]["n"] == 5
    out = capsys.readouterr().out
    assert "PSNR" in out and str(tmp_path / "first" / "metrics.json") in out

    assert evaluate("third", "--pairs=5", "--seed=1") == 0
    other = json.loads((tmp_path / "third" / "metrics.json").read_text())
    assert other["pairs"]["sha256"] != reports[0]["pairs"]["sha256"]


def test_exemplars_without_label_maps(evaluate, tmp_path, capsys):
    assert evaluate("true", "--pairs=5") == 0
    assert evaluate("guessed", "--pairs=5", "--guess_labels=3") == 0
    true, guessed = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("true", "guessed")
    )
    assert true["exemplar_labels_by"] is None and guessed["exemplar_labels_by"]["seed"] == 3
    # All sky: the toy model answers in black.
    assert guessed["metrics"]["self"]["psnr"]["mean"] < true["metrics"]["self"]["psnr"]["mean"]
    assert true["pairs"] == guessed["pairs"]
    assert "guesses of the segmenter of seed 3" in (tmp_path / "guessed" / "table.md").read_text()
    evaluate.judge = Guesser(3)
    assert evaluate("own", "--pairs=5", "--guess_labels=3") == 2
    assert "would judge its own labels" in capsys.readouterr().err and not list((tmp_path / "own").iterdir())


def beside(name):
    """Another file of this folder, as a module."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_fid_from_a_file(evaluate, monkeypatch, tmp_path, capsys):
    """The whole way, with random weights in a file as PyTorch writes it."""
    torch_file, inception = beside("test_torch_file"), beside("inception_reference")
    convolutions = json.loads(inception.REFERENCE.read_text(encoding="utf-8"))["convolutions"]
    entries, storages = {}, {}
    for key, (name, shape) in enumerate(inception.tensor_shapes(convolutions).items()):
        array = inception.random_tensor(name, shape)
        storages[str(key)] = ("FloatStorage", array.ravel())
        stride = [step // array.itemsize for step in array.strides]
        storage = torch_file.storage(str(key), count=array.size)
        entries[name] = torch_file.tensor(storage, size=shape, stride=stride)
    file = torch_file.write(tmp_path / "weights.pth", "zip", torch_file.ordered(entries), storages)
    monkeypatch.setattr(
        protocol, "load_judges", lambda size, batches, extractors, predict: Judges(extractors=extractors)
    )
    assert evaluate("out", "--pairs=4", "--batch_size=4", f"--inception={file}") == 0
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert report["inception"] == {"sha256": digest, "original": False}
    for found in report["distances"].values():
        assert found["inception"]["features"] == 2048 and found["inception"]["frechet"] > 0
    text = capsys.readouterr().out
    assert "| FID ↓ |" in text and "fewer than its 2048 features" in text
    assert f"another file than pytorch-fid's (SHA-256 {digest})" in text


def test_another_model_stands_beside_in_the_grid(evaluate, tmp_path, capsys):
    sizes = []
    for name, arguments in (("alone", []), ("beside", ["--beside=runs/other"])):
        assert evaluate(name, "--pairs=5", *arguments) == 0
        with Image.open(tmp_path / name / "grid.png") as grid:
            sizes.append(grid.size)
    # Eight columns, and one more for each of cross, retrieved and random.
    assert sizes[1][0] / sizes[0][0] == pytest.approx(11 / 8, rel=0.01)
    metrics = [
        (tmp_path / name / "metrics.json").read_text().split('"seconds"')[0] for name in ("alone", "beside")
    ]
    assert metrics[0] == metrics[1]
    evaluate.sizes = [16, 32]
    assert evaluate("larger", "--pairs=5", "--beside=runs/other") == 2
    assert "--beside=runs/other has other classes, or patches of another size" in capsys.readouterr().err


def test_results_tell_which_photos_they_are_of(evaluate, tmp_path):
    reports, warned = [], []
    (tmp_path / "dataset.json").write_text(json.dumps({"fingerprint": "f"}))
    for fingerprint in "fg":
        evaluate.fingerprint = fingerprint
        assert evaluate(fingerprint, "--pairs=6") == 0
        reports.append(json.loads((tmp_path / fingerprint / "metrics.json").read_text()))
        assert json.loads((tmp_path / fingerprint / "pairs.json").read_text())["fingerprint"] == fingerprint
        table = (tmp_path / fingerprint / "table.md").read_text()
        warned.append("prepared anew since the model was trained" in table)
    facts = {"fingerprint": "f", "name": "toy", "photos": 4, "split": "val", "trained_on": "f"}
    assert reports[0]["dataset"] == facts and reports[1]["dataset"] == facts | {"fingerprint": "g"}
    assert warned == [False, True]
    assert reports[0]["pairs"]["sha256"] != reports[1]["pairs"]["sha256"]
    assert reports[0]["pairs"]["n"] == 6 and reports[0]["pairs"]["photos"] == 4


def test_a_split_of_two_photos(evaluate, tmp_path, capsys):
    evaluate.photos = 2
    assert evaluate("out", "--pairs=3") == 0
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["swap"] is None and report["metrics"]["cross"]["n"] == 3
    assert "No swap test: it needs three different photos" in capsys.readouterr().out
    assert (tmp_path / "out" / "grid.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs=0"], "not above 0"),
        (["--batch_size=x"], "--batch_size"),
        (["--seed=-1"], "outside"),
        (["--seed=4294967296"], "outside 0..4294967295"),
    ],
)
def test_wrong_arguments(evaluate, capsys, arguments, message):
    assert evaluate("out", *arguments) == 2
    assert message in capsys.readouterr().err


def test_an_output_that_is_a_file(evaluate, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    assert evaluate("file") == 2
    assert "is not a folder" in capsys.readouterr().err and (tmp_path / "file").read_text() == "kept"


def test_a_dataset_with_other_classes(evaluate, monkeypatch, capsys):
    monkeypatch.setattr(Model, "classes", ClassTable(("sea",), ((1, 2, 3),)))
    assert evaluate("out") == 2
    assert "other classes" in capsys.readouterr().err
