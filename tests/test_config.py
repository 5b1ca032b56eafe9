import math
import os
from pathlib import Path

import pytest
from ml_collections import ConfigDict, config_dict

from mscaflax.config import (
    config_difference,
    config_from_json,
    config_to_json,
    load_config,
    read_config,
    shipped_configs,
    with_defaults,
)
from mscaflax.errors import UserError

SOURCE = """
from ml_collections import ConfigDict, config_dict

def get_config(arg="plain"):
    if arg not in ("plain", "wide"):
        raise ValueError(f"unknown variant {arg!r}: plain or wide")
    config = ConfigDict({"name": "x", "train": {"steps": 10, "rate": 0.5, "flip": False}})
    config.model = ConfigDict({"channels": (8, 16), "range": (0.5, 1.0)})
    config.model.width = 64 if arg == "wide" else 32
    config.model.double = config.model.get_ref("width") * 2
    config.model.limit = config_dict.placeholder(int)
    return config
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(SOURCE)
    return path


def load(file, *overrides):
    return load_config([f"--config={file}", *(f"--config.{item}" for item in overrides)])


def test_overrides_of_every_type(file):
    config = load(
        file,
        "name=3",
        "train.steps=7",
        "train.rate=2",
        "train.flip=true",
        "model.channels=(1, 2, 3)",
        "model.limit=5",
    )
    assert (config.name, config.train.steps, config.train.flip) == ("3", 7, True)
    assert config.train.rate == 2.0 and isinstance(config.train.rate, float)
    assert config.model.channels == (1, 2, 3)
    assert config.model.limit == 5
    assert load(file, "train.flip").train.flip is True
    assert load_config(["--config.train.steps=3", f"--config={file}"]).train.steps == 3


def test_references_follow_overrides_and_are_resolved(file):
    config = load(file, "model.width=10")
    assert config.model.double == 20
    config.model.width = 11
    assert config.model.double == 20


def test_result_takes_no_new_keys(file):
    with pytest.raises(AttributeError):
        load(file).model.depth = 3


def test_argument_of_the_file(file):
    assert load(f"{file}:wide").model.width == 64
    assert load(f"{file}:wide", "train.steps=2").train.steps == 2


def test_one_load_leaves_nothing_to_the_next(file, tmp_path):
    empty = tmp_path / "empty.py"
    empty.write_text("")
    load(file, "train.steps=3")
    assert load(file).train.steps == 10
    with pytest.raises(UserError, match="get_config"):
        load(empty)


@pytest.mark.parametrize(
    "argv, said",
    [
        ([], "no config given"),
        (["--config.train.steps=3"], "no config given"),
        (["--config="], "no config given"),
        (["--config"], "no config given"),
        (["--config=FILE", "--config=FILE"], "more than once"),
        (["--config=FILE.py"], "there is no config"),
        (["--config=scenes46"], "did you mean --config=scenes64"),
        (["--config=elsewhere/scenes64.py"], "did you mean --config=scenes64"),
        (["--config=FILE:broad"], "unknown variant 'broad': plain or wide"),
        (["--config=FILE", "--config.train.step=3"], r"'train.step'.*did you mean --config.train.steps\?"),
        (["--config=FILE", "--config.width=3"], r"did you mean --config.model.width\?"),
        (["--config=FILE", "--config.zzzz=3"], "at its top are model, name, train"),
        (["--config=FILE", "--config.train=3"], "--config.train is a group of values"),
        (["--config=FILE", "--config.train.steps=many"], "--config.train.steps=many"),
        (["--config=FILE", "--config.train.steps=1.5"], "--config.train.steps=1.5"),
        (["--config=FILE", "--config.train.steps"], "train.steps"),
        (["--config=FILE", "--config.train.flip=maybe"], "--config.train.flip=maybe"),
        (["--config=FILE", "--config.model.channels=(1, 'a')"], "'a' is not int"),
        (["--config=FILE", "--config.model.channels=(1, 2.5)"], "2.5 is not int"),
        (["--config=FILE", "--config.model.range=(0.5, True)"], "True is not float"),
    ],
)
def test_wrong_command_lines_are_user_errors(file, argv, said):
    with pytest.raises(UserError, match=said):
        load_config([item.replace("FILE", str(file)) for item in argv])


@pytest.mark.parametrize(
    "source, said",
    [
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("def get_config(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("def get_config(): return 3", "must return a ConfigDict"),
        ("def get_config(): return {}['a']", "KeyError"),
        ("def get_config(): raise OSError('no disk')", "no disk"),
        ("from mscaflax.errors import UserError\ndef get_config(): raise UserError('plainly')", "^plainly$"),
    ],
)
def test_broken_files_are_user_errors(tmp_path, source, said):
    file = tmp_path / "broken.py"
    file.write_text(source)
    with pytest.raises(UserError, match=said):
        load(file)


def test_shipped_configs_load_by_name_and_by_path(monkeypatch, tmp_path):
    shipped = shipped_configs()
    assert {"scenes64", "photos64", "tiny"} <= shipped.keys()
    monkeypatch.chdir(tmp_path)
    for name, path in shipped.items():
        assert load_config([f"--config={name}"]) == load_config([f"--config={path}"])


def test_a_file_comes_before_a_shipped_name(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    os.rename(file, "scenes64")
    Path("scenes64").write_text(SOURCE)
    assert load_config(["--config=scenes64"]).name == "x"


VALUES = {
    "none": None,
    "yes": True,
    "one": 1,
    "one_float": 1.0,
    "third": 1 / 3,
    "tiny": 5e-324,
    "text": 'γ "quoted"\n',
    "tuple": (1, (2.0, None), ()),
    "list": [1, [2, (3,)], []],
    "group": {"empty": {}, "inner": {"tuple": (True, "a")}},
}


def exactly(value):
    """The value with every type spelled out, so that 1, 1.0 and True differ, as do (1,) and [1]."""
    if isinstance(value, tuple | list):
        return type(value).__name__, [exactly(item) for item in value]
    if isinstance(value, dict):
        return {key: exactly(item) for key, item in value.items()}
    return type(value).__name__, repr(value)


def test_json_round_trip_is_exact():
    config = ConfigDict(VALUES)
    text = config_to_json(config)
    back = config_from_json(text)
    assert exactly(back.to_dict()) == exactly(config.to_dict())
    assert config_to_json(back) == text
    assert back.is_locked


def test_json_resolves_references(file):
    config = load(file)
    back = config_from_json(config_to_json(config))
    assert back.model.double == 64 and back.model.limit is None
    placeholder = ConfigDict({"limit": config_dict.placeholder(int)})
    assert config_from_json(config_to_json(placeholder)).limit is None


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1: 2}, {"__tuple__": [1]}, b"x"])
def test_json_refuses_what_it_cannot_say(value):
    config = ConfigDict({"a": {"b": 1}}, type_safe=False)
    config.a = {"b": value} if not isinstance(value, dict) else value
    with pytest.raises(TypeError, match=r"config value a"):
        config_to_json(config)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"__tuple__": [1]}'])
def test_json_that_is_no_config(text, tmp_path):
    with pytest.raises(UserError, match="not a stored config"):
        config_from_json(text)
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"config\.json: .*not a stored config"):
        read_config(path)


def test_read_config(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(UserError, match=r"config\.json is missing"):
        read_config(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"config\.json"):
        read_config(path)
    path.write_text(config_to_json(ConfigDict({"a": (1,)})))
    assert read_config(path).a == (1,)


def test_difference():
    a = ConfigDict({"model": {"k": 8, "c": (1, 2)}, "train": {"steps": 3, "rate": 0.5}, "old": "y"})
    b = ConfigDict({"model": {"k": 4, "c": (1, 2)}, "train": {"steps": 9, "rate": 0.5}, "new": {"z": None}})
    assert config_difference(a, a) == []
    assert config_difference(a, b) == [
        "model.k: 8 != 4",
        "new.z: absent != None",
        "old: 'y' != absent",
        "train.steps: 3 != 9",
    ]
    assert config_difference(a, b, ignore=("train", "new.z", "old")) == ["model.k: 8 != 4"]
    assert config_difference(a, b, ignore=("train.steps", "ne", "ol", "model")) == [
        "new.z: absent != None",
        "old: 'y' != absent",
    ]


def test_with_defaults_fills_younger_keys_only():
    base = load_config(["--config=base"])
    old = config_from_json(config_to_json(base))
    old.unlock()
    del old.model.noise
    old.model.num_regions = 3
    old.train.extra = "kept"
    filled = with_defaults(old)
    assert filled.model.noise is base.model.noise
    assert config_difference(filled, base) == [
        "model.num_regions: 3 != 16",
        "train.extra: 'kept' != absent",
    ]
    assert filled.is_locked
