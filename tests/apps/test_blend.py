"""Mixtures: at their ends they are the plain pictures, between them they lie between."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mscaflax import Synthesizer, UserError, cli
from mscaflax.apps.blend import Blender, check_steps, check_weights, path_weights, ramp
from mscaflax.apps.inputs import read_exemplar, read_layout
from mscaflax.training import segmenter
from mscaflax.training.model import Model


@pytest.fixture(scope="module")
def model(tiny_run):
    return Synthesizer.from_workdir(tiny_run).model


@pytest.fixture(scope="module")
def files(photo_folder, tmp_path_factory):
    """A label map of an odd size, and two photos with their maps."""
    folder = tmp_path_factory.mktemp("blend")
    Image.open(photo_folder / "annotations/val/0.png").crop((0, 0, 70, 50)).save(folder / "layout.png")
    Image.new("L", (16384, 8)).save(folder / "wide.png")
    for index in (0, 1):
        box = (20, 16, 52, 48)
        Image.open(photo_folder / f"images/train/{index}.png").crop(box).save(folder / f"{index}.png")
        label = Image.open(photo_folder / f"annotations/train/{index}.png").crop(box)
        label.save(folder / f"{index}_label.png")
    return folder


@pytest.fixture(scope="module")
def exemplars(model, files):
    return [read_exemplar(model, files / f"{i}.png", files / f"{i}_label.png") for i in (0, 1)]


@pytest.fixture(scope="module")
def blender(model, files, exemplars):
    return Blender(model, read_layout(model, files / "layout.png"), exemplars, seed=3)


@pytest.fixture(scope="module")
def plain(model, files):
    synthesizer = Synthesizer(model)
    return [
        synthesizer(files / "layout.png", files / f"{i}.png", files / f"{i}_label.png", seed=3)
        for i in (0, 1)
    ]


def assert_same_picture(found, expected):
    """But for one 8-bit level, which the rounding of another program can flip."""
    assert found.shape == expected.shape and found.dtype == np.uint8
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_exemplars_differ(plain):
    """By so much that no picture passes for the other within the tolerance above."""
    assert (np.abs(plain[0].astype(int) - plain[1]) > 1).mean() > 0.2


@pytest.mark.parametrize("index", [0, 1])
def test_a_weight_of_one_is_the_plain_picture(index, blender, plain):
    np.testing.assert_array_equal(blender.mix(np.eye(2)[index]), plain[index])
    # With regions of both exemplars, decoding sums others.
    assert_same_picture(
        blender.mix_places(np.eye(2)[index].reshape(2, 1, 1) * np.ones((2, 50, 70))), plain[index]
    )
    assert_same_picture(blender.mix_classes(dict.fromkeys(blender.model.classes.names, index)), plain[index])


def test_a_path_ends_at_the_plain_pictures(blender, plain):
    pictures = blender.path(3)
    np.testing.assert_array_equal(pictures[0], plain[0])
    np.testing.assert_array_equal(pictures[2], plain[1])
    assert (pictures[1] != plain[0]).any() and (pictures[1] != plain[1]).any()


def test_the_short_way_to_a_blender(model, files, blender):
    pairs = [(files / f"{i}.png", files / f"{i}_label.png") for i in (0, 1)]
    short = Synthesizer(model).blender(files / "layout.png", pairs, seed=3)
    np.testing.assert_array_equal(short.mix([0.25, 0.75]), blender.mix([0.25, 0.75]))


def test_weights_that_sum_to_one_over_one_exemplar_change_nothing(model, blender, exemplars, plain):
    same = Blender(model, blender.layout, [exemplars[0]] * 3, seed=3)
    assert_same_picture(same.mix([0.5, 1.0, -0.5]), plain[0])
    weights = np.random.default_rng(0).dirichlet(np.ones(3), (50, 70)).transpose(2, 0, 1)
    assert_same_picture(same.mix_places(weights), plain[0])
    assert_same_picture(
        Blender(model, blender.layout, exemplars[:1], seed=3).mix_places(np.ones((1, 50, 70))), plain[0]
    )


def test_a_mixture_is_linear_in_the_features(blender, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Model, "decode", lambda self, alignments, *rest: seen.append(alignments) or np.zeros((1, 64, 80, 3))
    )
    for weights in ((1, 0), (0, 1), (0.25, 0.75)):
        blender.mix(weights)
    for one, other, mixed in zip(*seen, strict=True):
        expected = 0.25 * one.features + 0.75 * other.features
        np.testing.assert_allclose(mixed.features, expected, atol=1e-5)
        np.testing.assert_array_equal(mixed.assignment, one.assignment)


def test_a_place_takes_its_own_exemplar(blender, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Model, "decode", lambda self, alignments, *rest: seen.append(alignments) or np.zeros((1, 64, 80, 3))
    )
    half = np.zeros((2, 50, 70))
    half[0, :, :32], half[1, :, 32:] = 1, 1
    blender.mix([1, 0])
    blender.mix([0, 1])
    blender.mix_places(half)
    for scale, (one, other, mixed) in enumerate(zip(*seen, strict=True)):
        border = 32 >> scale
        np.testing.assert_allclose(mixed.features[:, :, :border], one.features[:, :, :border], atol=1e-5)
        np.testing.assert_allclose(mixed.features[:, :, border:], other.features[:, :, border:], atol=1e-5)
        np.testing.assert_allclose(mixed.assignment.sum(axis=-1), 1, rtol=1e-5)
        assert mixed.values.shape[1] == 2 * one.values.shape[1] == mixed.assignment.shape[-1]


def test_a_class_takes_its_own_exemplar(blender, plain):
    names, label = blender.model.classes.names, blender.layout.crop(blender.layout.label)
    # The last that occurs: a wrong index may well be that of id 0.
    chosen = max(set(np.unique(label)) & set(range(len(names))))
    mask = label == chosen
    assert chosen > 0 and not mask.all()
    found = blender.mix_classes({names[chosen]: 1})
    np.testing.assert_array_equal(found, blender.mix_places(np.stack([~mask, mask])))
    for pure in plain:
        assert np.abs(found.astype(int) - pure).max() > 1


def test_path_weights():
    np.testing.assert_allclose([path_weights(t, 3) for t in (0, 1, 2)], np.eye(3))
    np.testing.assert_allclose(path_weights(0.25, 3), [0.75, 0.25, 0])
    np.testing.assert_allclose(path_weights(2.5, 3), [0, -0.5, 1.5])
    np.testing.assert_allclose(path_weights(-1, 2), [2, -1])


def test_a_path_goes_as_far_as_the_weights_may(blender, monkeypatch):
    """Through two exemplars, and through three, at half the distance."""
    mixed = []
    monkeypatch.setattr(Blender, "mix", lambda self, weights: mixed.append(weights) or np.zeros(1))
    for count, begin, end in ((2, -9, 10), (3, -4.5, 5.5)):
        blender_of = copy.copy(blender)
        blender_of._alignments = blender._alignments[:1] * count
        blender_of.path(2, begin, end)
        assert [np.abs(check_weights(weights, count)).max() for weights in mixed[-2:]] == [10, 10]
        with pytest.raises(UserError, match="between places"):
            blender_of.path(2, begin - 0.01, end)


def test_a_path_holds_so_many_pixels():
    check_steps(1000, (250, 400))
    with pytest.raises(UserError, match="1,000 pictures of 401x250 pixels is too large: at most 100,000,000"):
        check_steps(1000, (250, 401))


def test_a_ramp_rises():
    across, down = ramp((2, 4)), ramp((4, 2), vertical=True)
    np.testing.assert_allclose(across.sum(axis=0), 1)
    np.testing.assert_allclose(across[1], [[0.125, 0.375, 0.625, 0.875]] * 2)
    np.testing.assert_array_equal(down, across.transpose(0, 2, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: b.mix([1]), "2 exemplars need as many weights"),
        (lambda b: b.mix([np.nan, 1]), r"the weights must be numbers in -10\.\.10"),
        (lambda b: b.mix([1e30, 0]), r"the weights must be numbers in -10\.\.10"),
        (lambda b: b.path(1), "two steps or more, got 2 and 1"),
        (lambda b: b.path(2**32), "at most 1,000 steps, got 4,294,967,296"),
        (lambda b: b.path(3, begin=float("nan")), r"between places in -9\.\.10, got nan and 1"),
        (lambda b: b.path(3, end=float("inf")), r"between places in -9\.\.10, got 0 and inf"),
        (lambda b: b.path(3, -1e308, 1e308), r"between places in -9\.\.10, got -1e\+308 and 1e\+308"),
        (lambda b: b.path(3, end=10.1), r"between places in -9\.\.10, got 0 and 10\.1"),
        (lambda b: b.mix_places(np.ones((2, 50, 70))), r"must lie in -10\.\.10 and sum to 1"),
        (lambda b: b.mix_places(np.full((2, 50, 70), np.nan)), r"must lie in -10\.\.10 and sum to 1"),
        (
            lambda b: b.mix_places(np.array([11, -10]).reshape(2, 1, 1) * np.ones((2, 50, 70))),
            r"must lie in -10\.\.10 and sum to 1",
        ),
        (
            lambda b: b.mix_places(np.ones((2, 5, 7)) / 2),
            r"the weights are \[2, 5, 7\], they must be \[2, 50, 70\]",
        ),
        (lambda b: b.mix_classes({"moon base": 1}), "there is no class 'moon base'"),
        (lambda b: b.mix_classes({"sky": 2}), "there is no exemplar 2: count 0..1"),
    ],
)
def test_what_does_not_fit(call, message, blender):
    with pytest.raises(UserError, match=message):
        call(blender)


@pytest.fixture
def arguments(tiny_run, files):
    return [
        "blend", f"--workdir={tiny_run}", f"--label={files}/layout.png",
        "--exemplar", f"{files}/0.png", f"{files}/1.png",
        "--exemplar_label", f"{files}/0_label.png", f"{files}/1_label.png", "--seed=3",
    ]  # fmt: skip


def test_the_command_line(arguments, files, plain, blender, tmp_path, capsys):
    def picture(name, *how):
        assert cli.main([*arguments, f"--output={tmp_path}/{name}", *how]) == 0
        assert capsys.readouterr().out == f"{tmp_path}/{name}\n"
        return Image.open(tmp_path / name)

    strip = np.asarray(picture("strip.png", "--steps=3"))
    assert strip.shape == (50, 210, 3)
    np.testing.assert_array_equal(strip[:, :70], plain[0])
    np.testing.assert_array_equal(strip[:, 140:], plain[1])
    animation = picture("there_and_back.webp", "--steps=3")
    assert animation.n_frames == 4
    np.testing.assert_array_equal(np.asarray(animation.convert("RGB")), plain[0])
    np.testing.assert_array_equal(np.asarray(picture("second.png", "--weights=0,1")), plain[1])
    Image.new("L", (70, 50), 255).save(tmp_path / "white.png")
    assert_same_picture(np.asarray(picture("map.png", f"--weight_map={tmp_path}/white.png")), plain[1])
    across, down = (blender.mix_places(ramp((50, 70), vertical)) for vertical in (False, True))
    assert (np.abs(across.astype(int) - down) > 1).mean() > 0.01
    assert_same_picture(np.asarray(picture("across.png", "--ramp=horizontal")), across)
    assert_same_picture(np.asarray(picture("down.png", "--ramp=vertical")), down)
    classes = blender.mix_classes({"sky": 1})
    assert (classes != plain[0]).any()
    assert_same_picture(np.asarray(picture("classes.png", "--classes=sky=1")), classes)
    beyond = np.asarray(picture("beyond.png", "--steps=2", "--begin=1", "--end=1.5"))
    np.testing.assert_array_equal(beyond[:, :70], plain[1])
    np.testing.assert_array_equal(beyond[:, 70:], blender.mix([-0.5, 1.5]))
    with picture("there_and_back.gif", "--steps=3") as moving:
        assert moving.n_frames == 4


@pytest.mark.parametrize("labels", [[], ["--exemplar_label", "{files}/0_label.png", "-"]])
def test_the_command_line_guesses_label_maps(labels, arguments, model, files, tmp_path, monkeypatch, capsys):
    asked = []

    def predict(images):
        asked.append(images)
        return np.where(images[..., 1] > 0, 3, 5).astype(np.int32)

    guesses = SimpleNamespace(classes=model.classes, scores={"mean_iou": 0.456}, predict=predict)
    monkeypatch.setattr(segmenter, "load_segmenter", lambda *_, **__: guesses)
    # The one that is compiled already.
    monkeypatch.setattr("mscaflax.training.model.load_model", lambda *_: model)
    start = arguments.index("--exemplar_label")
    given = arguments[:start] + arguments[start + 3 :] + [item.format(files=files) for item in labels]
    assert cli.main([*given, "--weights=0.25,0.75", f"--output={tmp_path}/picture.png"]) == 0
    assert "guesses the label map of photos that come without: on validation" in capsys.readouterr().err
    assert len(asked) == (1 if labels else 2)
    known = [files / "0_label.png", None] if labels else [None, None]
    read = [read_exemplar(model, files / f"{i}.png", label, guesses) for i, label in enumerate(known)]
    assert [exemplar.guessed for exemplar in read] == [label is None for label in known]
    layout = read_layout(model, files / "layout.png")
    found = np.asarray(Image.open(tmp_path / "picture.png"))
    assert_same_picture(found, Blender(model, layout, read, seed=3).mix([0.25, 0.75]))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (["--weights=1,x"], "must be numbers with commas"),
        (["--weights=1e30,0"], "the weights must be numbers in -10..10"),
        (["--begin=-1e308", "--end=1e308"], "between places in -9..10"),
        (["--classes=sky"], "must look like sky=1,tree=0"),
        (["--weight_map={files}/0.png"], "is 32x32, the label map 70x50 pixels"),
        (["--ramp=vertical", "--output={out}/picture.gif"], "must end in .png"),
        (["--output={out}/none/picture.png"], "choose a file in a folder that exists"),
        (["--exemplar", "{files}/0.png"], "1 exemplars have 2 label maps: give one for each"),
        (
            ["--exemplar", "{files}/0.png", "--exemplar_label", "{files}/0_label.png"],
            "at least two exemplars",
        ),
        (["--steps=3", "--weights=1,0"], "not allowed with argument"),
        (["--seed=-1"], "argument --seed: -1 is outside"),
        ([f"--classes=sky={5000 * '9'}"], "must look like sky=1,tree=0"),
        (["--classes=sky=0,sky=1"], "--classes=sky=0,sky=1 names 'sky' twice"),
        (["--label={files}/wide.png", "--output={out}/picture.webp"], "WebP has at most 16383 pixels a side"),
        (["--steps=1000", "--label={files}/wide.png"], "1,000 pictures of 16384x8 pixels is too large"),
        (["--ramp=vertical", "--end=2"], "--begin and --end are of --steps"),
    ],
)
def test_bad_input_is_one_line(how, message, arguments, files, tmp_path, capsys):
    how = [item.format(files=files, out=tmp_path) for item in how]
    assert cli.main([*arguments, f"--output={tmp_path}/picture.png", *how]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err, err
    assert list(tmp_path.iterdir()) == []
