import numpy as np
import pytest
from PIL import Image

from mscaflax.cli import main
from mscaflax.data.datasets import open_dataset


@pytest.fixture
def arguments(tmp_path):
    """Arguments of `mscaflax prepare` for a folder with two photos."""
    for kind in ("images", "annotations"):
        (tmp_path / kind / "train").mkdir(parents=True)
    for index in range(2):
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / f"images/train/{index}.png")
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(tmp_path / f"annotations/train/{index}.png")
    (tmp_path / "classes.json").write_text('{"classes": ["a", "b"], "palette": [[1, 1, 1], [2, 2, 2]]}')
    return [
        "prepare", "--name=made", f"--images={tmp_path}/images", f"--annotations={tmp_path}/annotations",
        f"--classes={tmp_path}/classes.json", f"--data_dir={tmp_path}/data", "--workers=1",
    ]  # fmt: skip


def test_prepares_then_reuses(tmp_path, arguments, capsys):
    assert main(arguments) == 0
    assert "Prepared made (train 2) in" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "made is already prepared and its input has not changed" in capsys.readouterr().out
    assert open_dataset("made", tmp_path / "data").splits == {"train": 2}


def test_bad_files_are_listed_and_the_status_is_2(tmp_path, arguments, capsys):
    Image.fromarray(np.full((8, 8), 9, np.uint8)).save(tmp_path / "annotations/train/0.png")
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert f"{tmp_path}/annotations/train/0.png: label id 9 at x=0, y=0" in said.out
    assert "mscaflax: error: 1 of 2 examples cannot be used, so nothing was written" in said.err
    assert main([*arguments, "--skip_bad"]) == 0
    assert "Left out 1 examples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--name=made"], "--name=made needs --images and --annotations and --classes"),
        (["--name=made", "--source=x"], "--name=made needs --images"),
        (["--name=coco_stuff"], "--name=coco_stuff needs --source"),
        (["--name=coco_stuff", "--source=nowhere"], "nowhere is not a folder (--source): check the path"),
        (["--name=coco_stuff", "--source=.", "--images=x"], "--name=coco_stuff does not take --images"),
        (["--name=scenes", "--source=x", "--classes=y"], "--name=scenes does not take --classes or --source"),
        (["--name=Made"], "'Made' cannot name a dataset"),
        ([], "the following arguments are required: --name"),
    ],
)
def test_wrong_arguments_are_explained(argv, message, capsys):
    assert main(["prepare", *argv]) == 2
    assert message in capsys.readouterr().err
