import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from mscaflax.data.inputs import (
    PhotoItem,
    coco_stuff_inputs,
    folder_inputs,
    photo_example,
    scenes_inputs,
)
from mscaflax.errors import UserError


def decoded(example):
    return tuple(np.asarray(Image.open(io.BytesIO(example[key]))) for key in ("image", "label"))


def test_folder_lists_every_split_in_order(tmp_path, make_folder):
    inputs = folder_inputs("made", **make_folder(tmp_path, {"train": 3, "val": 2}))
    assert {split: [item.name for item in items] for split, items in inputs.splits.items()} == {
        "train": ["train00", "train01", "train02"],
        "val": ["val00", "val01"],
    }
    assert inputs.problems == () and inputs.num_items == 5


def test_example_holds_the_photo_and_ids_with_c_for_unlabelled(tmp_path, make_folder, labels):
    inputs = folder_inputs("made", **make_folder(tmp_path, {"train": 1}))
    example = inputs.make(inputs.splits["train"][0])
    assert example["name"] == "train00"
    assert example["image"] == (tmp_path / "images/train/train00.jpg").read_bytes()
    label = decoded(example)[1]
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, np.where(labels(1) == 255, 3, labels(1)))


def test_sizes_are_compared_after_rotation(tmp_path, photo, labels, classes):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(1)).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(labels(1)).save(tmp_path / "a.png")
    item = PhotoItem("a", str(tmp_path / "a.jpg"), str(tmp_path / "a.png"))
    with pytest.raises(UserError) as error:
        photo_example(item, classes=classes)
    assert str(error.value) == (
        f"{tmp_path}/a.png: the label map is 32x24 but its photo {tmp_path}/a.jpg is 24x32 "
        "(width x height, upright): the sizes must be equal"
    )
    Image.fromarray(labels(1, (32, 24))).save(tmp_path / "a.png")
    image, label = decoded(photo_example(item, classes=classes))
    assert image.shape == (32, 24, 3) and label.shape == (32, 24)


def test_photos_and_maps_without_a_partner_are_problems(tmp_path, make_folder):
    folders = make_folder(tmp_path, {"train": 4})
    (tmp_path / "annotations/train/train01.png").unlink()
    (tmp_path / "images/train/train02.jpg").unlink()
    shutil.copy(tmp_path / "images/train/train03.jpg", tmp_path / "images/train/train03.JPEG")
    (tmp_path / "images/train/notes.txt").write_text("left alone")
    (tmp_path / "images/train/.hidden.jpg").write_text("left alone")
    inputs = folder_inputs("made", **folders)
    assert [item.name for item in inputs.splits["train"]] == ["train00"]
    images, maps = tmp_path / "images/train", tmp_path / "annotations/train"
    assert inputs.problems == (
        f"{images}/train01.jpg: no label map {maps}/train01.png",
        f"{maps}/train02.png: no photo {images}/train02.jpg (or another photo format)",
        f"{images}/train03.jpg: the name 'train03' occurs more than once in train",
    )


def test_a_split_without_a_folder_of_maps_is_a_problem_for_each_photo(tmp_path, make_folder):
    folders = make_folder(tmp_path, {"train": 1, "val": 2})
    shutil.rmtree(tmp_path / "annotations/val")
    problems = folder_inputs("made", **folders).problems
    assert len(problems) == 2 and all("no label map" in problem for problem in problems)


def test_unusable_folders(tmp_path, make_folder):
    folders = make_folder(tmp_path, {"train": 1})
    with pytest.raises(UserError, match=r"nowhere is not a folder \(--images\)"):
        folder_inputs("made", **(folders | {"images": tmp_path / "nowhere"}))
    with pytest.raises(UserError, match=r"annotations/train holds no folders: put the photos of a split in"):
        folder_inputs("made", **(folders | {"images": tmp_path / "annotations/train"}))
    (tmp_path / "images/val").mkdir()
    with pytest.raises(UserError, match=r"images/val holds no photos \(\.jpg"):
        folder_inputs("made", **folders)
    (tmp_path / "images/val").rename(tmp_path / "images/all")
    with pytest.raises(UserError, match="'all' cannot name a split"):
        folder_inputs("made", **folders)


def test_fingerprint_changes_with_files_and_classes_only(tmp_path, make_folder):
    folders = make_folder(tmp_path, {"train": 2})
    before = folder_inputs("made", **folders).fingerprint
    assert folder_inputs("made", **folders).fingerprint == before
    # Without the files' times, as a copy from another machine may come.
    moved = shutil.copytree(tmp_path, tmp_path / "copy", copy_function=shutil.copyfile)
    copies = {key: moved / path.name for key, path in folders.items()}
    assert folder_inputs("other", **copies).fingerprint == before
    with open(tmp_path / "images/train/train00.jpg", "ab") as file:
        file.write(b"\0")
    longer = folder_inputs("made", **folders).fingerprint
    classes = copies["classes_file"]
    classes.write_text(classes.read_text().replace("sky", "air"))
    renamed = folder_inputs("made", **copies).fingerprint
    (moved / "annotations/train/train01.png").unlink()
    fewer = folder_inputs("made", **copies).fingerprint
    assert len({before, longer, renamed, fewer}) == 4


@pytest.mark.parametrize("file", ["images/train/train01.jpg", "annotations/train/train01.png"])
def test_fingerprint_changes_with_an_edit_that_keeps_size_and_time(tmp_path, make_folder, file):
    folders = make_folder(tmp_path, {"train": 2})
    before = folder_inputs("made", **folders).fingerprint
    path, data = tmp_path / file, bytearray((tmp_path / file).read_bytes())
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=times)
    assert folder_inputs("made", **folders).fingerprint != before


@pytest.mark.parametrize(
    ("decoder", "culprit"), [("read_label_map", "annotations/train/train00.png"), ("photo_record", "images")]
)
def test_whatever_a_decoder_raises_is_a_problem_of_its_file(
    tmp_path, make_folder, monkeypatch, decoder, culprit
):
    def fail(*arguments):
        raise AttributeError("deep inside\nof Pillow")

    inputs = folder_inputs("made", **make_folder(tmp_path, {"train": 1}))
    monkeypatch.setattr(f"mscaflax.data.inputs.{decoder}", fail)
    with pytest.raises(UserError) as error:
        inputs.make(inputs.splits["train"][0])
    assert str(error.value).startswith(f"{tmp_path / culprit}")
    assert str(error.value).endswith(": cannot be used: AttributeError: deep inside of Pillow")


def test_coco_stuff_layout(tmp_path, photo):
    for split in ("train2017", "val2017"):
        (tmp_path / split).mkdir()
        (tmp_path / "stuffthingmaps" / split).mkdir(parents=True)
        Image.fromarray(photo(1)).save(tmp_path / split / "000000000001.jpg")
        ids = np.array([0, 90, 91, 181, 255], np.uint8)[np.arange(24 * 32).reshape(24, 32) % 5]
        Image.fromarray(ids).save(tmp_path / "stuffthingmaps" / split / "000000000001.png")
    inputs = coco_stuff_inputs("coco_stuff", tmp_path)
    assert {split: len(items) for split, items in inputs.splits.items()} == {"train": 1, "val": 1}
    label = decoded(inputs.make(inputs.splits["val"][0]))[1]
    assert np.unique(label).tolist() == [0, 90, 91, 181, 182]
    shutil.rmtree(tmp_path / "stuffthingmaps" / "val2017")
    with pytest.raises(UserError, match=r"stuffthingmaps/val2017 is not a folder \(part of COCO"):
        coco_stuff_inputs("coco_stuff", tmp_path)


def test_scenes_are_rendered_by_split_and_index():
    inputs = scenes_inputs(counts={"train": 2, "val": 1}, size=(32, 64))
    examples = [inputs.make(item) for items in inputs.splits.values() for item in items]
    assert [example["name"] for example in examples] == ["train_00000", "train_00001", "val_00000"]
    pictures = [decoded(example) for example in examples]
    for image, label in pictures:
        assert image.shape == (32, 64, 3) and label.shape == (32, 64)
        assert label.max() < inputs.classes.num_classes
    assert (pictures[0][0] != pictures[2][0]).any()
    assert inputs.fingerprint != scenes_inputs(counts={"train": 2, "val": 1}, size=(64, 64)).fingerprint


def test_the_fingerprint_of_scenes_tells_the_renderers_version_and_no_encoders(monkeypatch):
    before = scenes_inputs().fingerprint
    with monkeypatch.context() as patch:
        patch.setattr("mscaflax.data.inputs.encode_png", lambda array: b"as another Pillow compresses")
        assert scenes_inputs().fingerprint == before
    monkeypatch.setattr("mscaflax.data.scenes.RENDERER_VERSION", 0)
    assert scenes_inputs().fingerprint != before


def test_real_photos_pass_the_checks(shared_data):
    for name in ("facade", "camvid"):
        folder = shared_data / name
        inputs = folder_inputs(name, folder / "images", folder / "annotations", folder / "classes.json")
        assert inputs.problems == ()
        image, label = decoded(inputs.make(inputs.splits["val"][0]))
        assert image.shape[:2] == label.shape and label.max() <= inputs.classes.num_classes
