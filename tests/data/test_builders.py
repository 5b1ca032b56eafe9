"""The builder under TFDS's own tests for builders."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mscaflax.data.builders import LabelMapBuilder, tfds
from mscaflax.data.classes import ClassTable
from mscaflax.data.inputs import folder_inputs

_EXAMPLES = tempfile.TemporaryDirectory(prefix="mscaflax-examples-")


def _write_examples(root: Path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1)):
        for kind, shape, suffix in (("images", (12, 16, 3), "jpg"), ("annotations", (12, 16), "png")):
            (root / kind / split).mkdir(parents=True)
            for index in range(count):
                array = rng.integers(0, 2, shape, dtype=np.uint8)
                Image.fromarray(array).save(root / kind / split / f"{index}.{suffix}")
    (root / "classes.json").write_text('{"classes": ["a", "b"], "palette": [[1, 1, 1], [2, 2, 2]]}')
    return folder_inputs("made_photos", root / "images", root / "annotations", root / "classes.json")


class MadePhotos(LabelMapBuilder):
    """The builder with fixed input, since TFDS's tests construct it themselves."""

    name = "made_photos"
    inputs = _write_examples(Path(_EXAMPLES.name))

    def __init__(self, **kwargs):
        # TFDS's tests read by tf.data, for which array_record has no reader.
        super().__init__(inputs=self.inputs, file_format="tfrecord", **kwargs)


class TestMadePhotos(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = MadePhotos
    EXAMPLE_DIR = _EXAMPLES.name
    SPLITS = {"train": 3, "val": 1}


def test_metadata_survives_and_the_format_is_array_record(tmp_path):
    builder = LabelMapBuilder(inputs=MadePhotos.inputs, data_dir=tmp_path)
    builder.download_and_prepare()
    restored = tfds.builder_from_directory(tmp_path / "made_photos" / "1.0.0")
    assert restored.info.file_format.value == "array_record"
    metadata = restored.info.metadata["mscaflax"]
    assert ClassTable.from_json(metadata["classes"]) == MadePhotos.inputs.classes
    assert metadata["unlabelled"] == 2 and metadata["left_out"] == []


def test_order_depends_on_names_alone(tmp_path):
    def names(folder, results):
        builder = LabelMapBuilder(inputs=MadePhotos.inputs, results=results, data_dir=tmp_path / folder)
        builder.download_and_prepare()
        return [example["name"] for example in builder.as_data_source("train")]

    make, splits = MadePhotos.inputs.make, MadePhotos.inputs.splits
    backwards = names("b", lambda split: (make(item) for item in reversed(splits[split])))
    assert names("a", None) == backwards


@pytest.fixture(scope="module", autouse=True)
def remove_examples():
    yield
    _EXAMPLES.cleanup()
