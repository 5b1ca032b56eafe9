import io
import json
import types

import numpy as np
import pytest
from PIL import Image

from mscaflax.cli import main
from mscaflax.data.classes import ClassTable
from mscaflax.errors import UserError

# In files 7 would mean unlabelled; prepared datasets store C = 3 instead.
CLASSES = ClassTable(("sky", "wall", "door"), ((0, 0, 255), (200, 100, 50), (90, 60, 20)), ignore=7)


def example(seed, largest=3):
    """A record as datasets hold it; names repeat from split to split. The photo is never read."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, largest + 1, rng.integers(1, 4, 2)).repeat(9, 0).repeat(11, 1)
    file = io.BytesIO()
    Image.fromarray(label.astype(np.uint8)).save(file, "PNG")
    return {"image": b"", "label": file.getvalue(), "name": f"photo{seed % 100}"}


@pytest.fixture
def splits(monkeypatch):
    """The splits of the dataset `toy`: what a test changes here, the command finds."""
    content = {
        "train": [example(i) for i in range(23)],
        "train[:10]": [example(i) for i in range(10)],
        "val": [example(100 + i) for i in range(6)],
        "single": [example(200)],
    }

    def source(split):
        if split not in content:
            raise UserError(f"the dataset toy has no split {split!r}; it has train, val")
        return content[split]

    def open_dataset(name, data_dir=None):
        assert (name, data_dir) == ("toy", "somewhere")
        return types.SimpleNamespace(name=name, classes=CLASSES, source=source)

    monkeypatch.setattr("mscaflax.data.datasets.open_dataset", open_dataset)
    return content


@pytest.fixture
def retrieve(splits, tmp_path):
    def run(split, candidates, *arguments, output="exemplars.json"):
        named = ["--name=toy", "--data_dir=somewhere", f"--split={split}", f"--candidates={candidates}"]
        return main(["retrieve", *named, f"--output={tmp_path / output}", *arguments])

    return run


def read(path):
    return {
        x["target"]: [e["name"] for e in x["exemplars"]] for x in json.loads(path.read_text())["exemplars"]
    }


def test_writes_names_and_distances(retrieve, tmp_path, capsys):
    assert retrieve("val", "train", "--count=4", "--seed=2") == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'exemplars.json'}\n" and "29/29" in said.err
    report = json.loads((tmp_path / "exemplars.json").read_text())
    assert report["candidates"] == {"n": 23, "split": "train"}
    assert (report["dataset"], report["split"], report["count"], report["seed"]) == ("toy", "val", 4, 2)
    assert [x["target"] for x in report["exemplars"]] == [f"photo{i}" for i in range(6)]
    for found in report["exemplars"]:
        assert len({e["name"] for e in found["exemplars"]}) == 4
        assert all(0 <= e["distance"] <= 1 for e in found["exemplars"])
    assert [path.name for path in tmp_path.iterdir()] == ["exemplars.json"]


def test_the_same_command_gives_the_same_file(retrieve, splits, tmp_path):
    assert retrieve("val", "train", output="first.json") == 0
    assert retrieve("val", "train", output="second.json") == 0
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    splits["train"].reverse()
    assert retrieve("val", "train", output="second.json") == 0
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    assert retrieve("val", "train", "--seed=1", output="second.json") == 0
    assert read(tmp_path / "first.json") != read(tmp_path / "second.json")


@pytest.mark.parametrize("split", ["train", "train[:10]"])
def test_a_split_for_itself_never_returns_the_target(retrieve, tmp_path, split):
    assert retrieve(split, "train", "--count=4") == 0
    found = read(tmp_path / "exemplars.json")
    assert len(found) == (23 if split == "train" else 10)
    assert all(target not in names for target, names in found.items())


def test_an_image_of_the_same_name_in_another_split_is_another_image(retrieve, splits, tmp_path):
    splits["val"] = [example(100)]
    splits["train"] = [{**example(100), "name": "photo0"}]
    assert retrieve("val", "train") == 0
    assert read(tmp_path / "exemplars.json") == {"photo0": ["photo0"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vla", "train"), "the dataset toy has no split 'vla'"),
        (("val", "tarin"), "the dataset toy has no split 'tarin'"),
        (("val", "train+val"), "'train+val' joins splits"),
        (("single", "single"), "a target has no candidate but itself"),
        (("val", "train", "--count=5"), "5 exemplars per target were asked for"),
        (("val", "train", "--count=0"), "0 is not above 0"),
        (("val", "train", "--seed=-1"), "-1 is negative"),
    ],
)
def test_wrong_arguments_are_one_line(retrieve, tmp_path, capsys, arguments, message):
    assert retrieve(*arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("mscaflax: error: ") and message in error
    assert not list(tmp_path.iterdir())


def test_the_target_itself_counts_against_the_count(retrieve, splits, capsys):
    # 20% of 25 are 5, but of the 24 that are left 4.
    splits["train"] += [example(23), example(24)]
    assert retrieve("val", "train", "--count=5") == 0
    assert retrieve("train", "train", "--count=5") == 2
    assert "only 4" in capsys.readouterr().err


def test_outputs_that_cannot_be_written(retrieve, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    for output in ("folder", "missing/exemplars.json", "file/exemplars.json"):
        assert retrieve("val", "train", output=output) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"{output} cannot be written" in error
    assert (tmp_path / "file").read_text() == "kept"


def test_a_label_map_with_a_foreign_id(retrieve, splits, capsys):
    label = io.BytesIO()
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(label, "PNG")
    splits["train"][3]["label"] = label.getvalue()
    assert retrieve("val", "train") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "photo3" in error and "label id 7" in error and "prepare the dataset again" in error


def test_a_prepared_dataset(prepared_photos, tmp_path, capsys):
    named = [
        "retrieve",
        "--name=photos",
        f"--data_dir={prepared_photos}",
        f"--output={tmp_path / 'found.json'}",
    ]
    assert main([*named, "--split=val", "--candidates=train"]) == 0
    assert len(read(tmp_path / "found.json")) == 4
    assert main([*named, "--split=val[:0]", "--candidates=train"]) == 2
    assert "'val[:0]' is not a slice" in capsys.readouterr().err
    assert main([*named, "--split=val", "--candidates=test"]) == 2
    assert "has no split 'test'" in capsys.readouterr().err
