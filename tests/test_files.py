from pathlib import Path

import pytest

import mscaflax
from mscaflax import UserError, cli
from mscaflax.files import expanded, folder_at_once, write_atomically
from mscaflax.training.checkpoint import Checkpoints
from mscaflax.training.description import make_workdir
from mscaflax.training.segmenter import segmenter_folder


def test_text_and_bytes_with_the_usual_permissions(tmp_path):
    write_atomically(tmp_path / "text", "für")
    write_atomically(tmp_path / "bytes", b"\x00\xff")
    assert (tmp_path / "text").read_text(encoding="utf-8") == "für"
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    (tmp_path / "plain").touch()
    assert (tmp_path / "text").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_at_once_with_the_usual_permissions(tmp_path):
    # What others left there is theirs.
    (tmp_path / ".new.part").mkdir()
    with folder_at_once(tmp_path / "new") as folder:
        (folder / "file").touch()
        assert not (tmp_path / "new").exists()
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(file.name for file in tmp_path.rglob("*")) == [".new.part", "file", "new", "plain"]


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), folder_at_once(tmp_path / "new") as folder:
        (folder / "file").touch()
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_home_folder_that_there_is_and_one_that_there_is_not(monkeypatch):
    monkeypatch.setenv("HOME", "/homes/someone")
    assert expanded("~/x") == Path("/homes/someone/x") and expanded(Path("x/~")) == Path("x/~")
    with pytest.raises(UserError, match="^~nosuchuser/x: no home folder is known for ~nosuchuser; write the"):
        expanded("~nosuchuser/x")


GIVEN = ["--label=a.png", "--exemplar=b.png", "--output=c.png"]


@pytest.mark.parametrize(
    "line",
    [
        ["synthesize", *GIVEN, "--workdir=~nosuchuser/x"],
        ["synthesize", *GIVEN, "--output=~nosuchuser/x.png"],
        ["retrieve", "--name=x", "--split=val", "--candidates=train", "--output=~nosuchuser/x.json"],
        ["evaluate", "--output=~nosuchuser/x"],
        ["export", "--output=~nosuchuser/x.zip"],
        ["export", "--output=~nosuchuser/x", "--format=savedmodel"],
        ["pack", "--workdir=x", "--output=~nosuchuser/x"],
        ["prepare", "--name=scenes", "--data_dir=~nosuchuser/x"],
        ["prepare", "--name=coco_stuff", "--source=~nosuchuser/x"],
        ["prepare", "--name=mine", "--images=.", "--annotations=.", "--classes=~nosuchuser/x"],
        ["segmenter", "--workdir=~nosuchuser/x"],
        ["train", "--workdir=x", "--config=tiny", "--config.data.data_dir=~nosuchuser/x"],
    ],
)
def test_an_unknown_home_folder_is_one_line_in_every_command(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line) == 2
    out, err = capsys.readouterr()
    assert out == "" and "~nosuchuser/x" in err and err.splitlines()[-1].startswith("mscaflax: error: "), err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "call",
    [mscaflax.load_exported, make_workdir, Checkpoints, lambda workdir: segmenter_folder(workdir, seed=0)],
)
def test_an_unknown_home_folder_from_python(call):
    with pytest.raises(UserError, match="no home folder is known"):
        call("~nosuchuser/x")


def test_evaluate_writes_to_the_home_folder_that_is_meant(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", "--workdir=missing", "--output=~/results"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert (tmp_path / "home/results").is_dir()


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in Path(tmp_path).iterdir()] == ["file"]
