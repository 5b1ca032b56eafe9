"""What all tests share: JAX on the CPU and strict, and the real photos where they are."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

ROOT = Path(__file__).parents[1]

# Set as environment variables, before JAX is imported, so that programs started by tests are strict too.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"  # no silent broadcast between ranks
os.environ["JAX_CAPTURED_CONSTANTS_WARN_BYTES"] = "100000"  # weights are arguments, never constants

# Toy networks run for a second and compile for minutes: LLVM's optimizations are not worth their time.
_COMPILE_FAST = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_COMPILE_FAST}".strip()

# A train step compiled by one test, program or worker is loaded by the next. The folder lives as long as the
# run: a cache that outlived it could hold an entry cut short by a killed program. A limit of its size makes
# JAX lock the folder, so that no worker reads what another is still writing.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _COMPILED = tempfile.TemporaryDirectory(prefix="mscaflax-compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(4 * 2**30)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

# A worker that is handed one of these last works on alone for minutes.
LONGEST_FIRST = [
    "training/test_distributed.py",
    "test_main_job.py",
    "training/test_loop.py",
    "training/test_faults.py",
    "training/test_signals.py",
    "training/test_processes.py",
    "training/test_segmenter.py",
    "training/test_step.py",
    "nets/test_generator.py",
    "evaluation/test_devices.py",
]


def pytest_collection_modifyitems(items):
    """Puts the longest files first; the workers take files in this order (`--no-loadscope-reorder`)."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session", autouse=True)
def one_device():
    """Has JAX take its one CPU device now: the first command that a test calls would make two of it."""
    import jax

    assert jax.device_count() == 1


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the photo datasets `facade`, `camvid` and `coco_stuff`; skips where it is absent."""
    folder = Path(os.environ.get("MSCAFLAX_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no photos at {folder}; MSCAFLAX_SHARED=FOLDER names another place")
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """A function (name, make) → folder, which `make(folder)` fills once for all workers of the test run."""

    def made(name, make):
        root = tmp_path_factory.getbasetemp()
        root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
        folder, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                assert not folder.exists(), f"another worker could not make {name}: see its error"
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory) -> Path:
    """A folder as users have them: 8 + 4 photos of 128x64 (scenes), label maps, classes.json."""
    from mscaflax.data import scenes
    from mscaflax.data.classes import ClassTable

    root = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 8), ("val", 4)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            image, label = scenes.render(*scenes.scene(split, index), (64, 128))
            Image.fromarray(image).save(root / "images" / split / f"{index}.png")
            Image.fromarray(label.astype(np.uint8)).save(root / "annotations" / split / f"{index}.png")
    classes = ClassTable(scenes.CLASS_NAMES, scenes.PALETTE)
    (root / "classes.json").write_text(json.dumps(classes.to_json()))
    return root


@pytest.fixture(scope="session")
def prepared_photos(photo_folder, made_once) -> Path:
    """The data_dir that holds `photo_folder` as the dataset `photos`."""
    from mscaflax.data.inputs import folder_inputs
    from mscaflax.data.prepare import prepare

    def make(data_dir):
        folders = photo_folder / "images", photo_folder / "annotations"
        prepare(folder_inputs("photos", *folders, photo_folder / "classes.json"), data_dir, workers=1)

    return made_once("prepared_photos", make)


@pytest.fixture(scope="session")
def tiny_arguments(prepared_photos) -> list[str]:
    """The config of `tiny_run` as the command line gives it: four steps, everything written often."""
    return [
        "--config=tiny",
        "--config.data.name=photos",
        f"--config.data.data_dir={prepared_photos}",
        "--config.train.steps=4",
        "--config.train.batch_size=2",
        "--config.train.log_every=1",
        "--config.train.health_every=2",
        "--config.train.sample_every=4",
        "--config.train.checkpoint_every=2",
    ]


@pytest.fixture(scope="session")
def light_arguments(tiny_arguments) -> list[str]:
    """`tiny_arguments` with less network: where a test looks at processes, most of its time is compiling.

    No program keeps for a second process what it compiled, see JAX_COMPILATION_CACHE_DIR above.
    """
    return [
        *tiny_arguments,
        "--config.model.attention_scales=(False,False,True,False,False)",
        "--config.discriminator.num_scales=1",
    ]


@pytest.fixture(scope="session")
def tiny_run(tiny_arguments, made_once) -> Path:
    """The workdir of an unbroken run of a toy network. Read only: copy it to change it."""
    from mscaflax.config import load_config
    from mscaflax.training.loop import train
    from mscaflax.training.synthesis import SynthesisTask

    def make(workdir):
        assert train(SynthesisTask(load_config(tiny_arguments)), workdir) == (4, None)

    return made_once("tiny_run", make)


@pytest.fixture(scope="session")
def exported_run(tiny_run, made_once) -> Path:
    """The file that `mscaflax export` makes of `tiny_run`."""
    from mscaflax.cli import main

    def make(folder):
        assert main(["export", f"--workdir={tiny_run}", f"--output={folder}/model.zip"]) == 0

    return made_once("exported_run", make) / "model.zip"


@pytest.fixture(scope="session")
def coloured_photos(made_once) -> Path:
    """The data_dir of the dataset `coloured`, where colour tells the class; some pixels are unlabelled."""
    from mscaflax.data.classes import ClassTable
    from mscaflax.data.inputs import folder_inputs
    from mscaflax.data.prepare import prepare

    classes = ClassTable(
        ("red", "green", "blue", "never"), ((200, 0, 0), (0, 200, 0), (0, 0, 200), (9, 9, 9))
    )

    def make(root):
        rng = np.random.default_rng(0)
        for split, count in (("train", 8), ("val", 4)):
            for kind in ("images", "annotations"):
                (root / kind / split).mkdir(parents=True)
            for index in range(count):
                label = np.full((64, 128), rng.integers(3), np.uint8)
                for _ in range(8):
                    y, x = rng.integers(0, 48), rng.integers(0, 112)
                    label[y : y + rng.integers(12, 32), x : x + rng.integers(12, 48)] = rng.integers(3)
                image = np.array(classes.palette)[label] + rng.normal(40, 15, (64, 128, 3))
                # A stripe of every colour that says nothing: whoever learns from it learns what is wrong.
                label[24:32] = 255
                image = np.clip(image, 0, 255).astype(np.uint8)
                Image.fromarray(image).save(root / "images" / split / f"{index}.png")
                Image.fromarray(label).save(root / "annotations" / split / f"{index}.png")
        (root / "classes.json").write_text(json.dumps(classes.to_json()))
        folders = root / "images", root / "annotations"
        prepare(folder_inputs("coloured", *folders, root / "classes.json"), root / "data", workers=1)

    return made_once("coloured", make) / "data"


@pytest.fixture(scope="session")
def segmenter_run(coloured_photos, made_once) -> Path:
    """A workdir whose toy segmenter of seed 0 is trained, not scored. Read only: copy it to change it."""
    from mscaflax.config import load_config
    from mscaflax.training.loop import train
    from mscaflax.training.segmenter import SegmenterTask, segmenter_folder
    from mscaflax.training.synthesis import SynthesisTask

    config = load_config(
        [
            "--config=tiny",
            "--config.data.name=coloured",
            f"--config.data.data_dir={coloured_photos}",
            "--config.segmenter.rate=0.01",
            "--config.segmenter.steps=40",
            "--config.segmenter.log_every=1",
            "--config.segmenter.health_every=40",
            "--config.segmenter.sample_every=40",
            "--config.segmenter.checkpoint_every=20",
        ]
    )

    def make(workdir):
        SynthesisTask(config).store_description(workdir)
        assert train(SegmenterTask(config), segmenter_folder(workdir, 0)) == (40, None)

    return made_once("segmenter_run", make)
