"""Configurations: ml_collections files, overrides from the command line, and their form in JSON."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import runpy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from mscaflax.errors import UserError

ConfigDict = config_dict.ConfigDict

_TUPLE = "__tuple__"  # JSON has no tuples: {"__tuple__": [...]} stands for one


def shipped_configs() -> dict[str, Path]:
    """Returns the shipped config files by name, e.g. `{"scenes64": PosixPath(".../scenes64.py")}`."""
    # The folder configs/ of the repository is installed as the package `mscaflax.configs` (setup.py).
    spec = importlib.util.find_spec("mscaflax.configs")
    folders = spec.submodule_search_locations if spec else []
    files = (file for folder in folders for file in Path(folder).glob("[!_]*.py"))
    return {file.stem: file for file in sorted(files)}


def load_config(argv: Sequence[str]) -> ConfigDict:
    """Builds the config that a command line asks for.

    Args:
      argv: `--config=FILE[:ARGS]` once, and any number of `--config.KEY=VALUE`, in any order. FILE is a
        path, or the bare name of a shipped config. ARGS is passed to the file's `get_config`. A tuple
        is written `--config.KEY='(1, 2)'`, a boolean `true` or `false`.

    Returns:
      The config: locked (no new keys), lazy references resolved.

    Raises:
      UserError: no or an unreadable FILE, a config that fails to build, an unknown KEY, a VALUE of the
        wrong type.
    """
    files = [item for item in argv if item.split("=", 1)[0] == "--config"]
    overrides = [item for item in argv if item not in files]
    if len(files) != 1 or not files[0].removeprefix("--config").strip("="):
        problem = "--config is given more than once" if len(files) > 1 else "no config given"
        raise UserError(f"{problem}: write --config=FILE once, FILE a path or one of {_names()}")
    config = _load_file(files[0].split("=", 1)[1])
    values = dict(_leaves(config))
    for item in overrides:
        _check_override(item, values)
    # A private set of flags: nothing of this command line is left for the next.
    store = flags.FlagValues()
    command_line = ["mscaflax", *overrides]
    config_flags.DEFINE_config_dict("config", config, flag_values=store, sys_argv=command_line)
    try:
        store(command_line)
    except flags.Error as error:
        raise UserError(str(error)) from None
    parsed = store.config
    for item in overrides:
        _check_tuple(item, values, parsed)
    return parsed.copy_and_resolve_references()


def config_to_json(config: ConfigDict) -> str:
    """Returns `config` as JSON text: sorted keys, tuples, None, booleans, ints and floats kept apart.

    Raises:
      TypeError: a value that JSON cannot say exactly (an array, a function, NaN ...).
    """
    resolved = ConfigDict(config).copy_and_resolve_references()
    return json.dumps(_encode(resolved.to_dict(), ""), indent=2, sort_keys=True) + "\n"


def config_from_json(text: str) -> ConfigDict:
    """Returns the locked config that `config_to_json` wrote.

    Raises:
      UserError: `text` is not such JSON.
    """
    try:
        values = _decode(json.loads(text))
        if not isinstance(values, dict):
            raise ValueError("the top level is not an object")
    except ValueError as error:
        raise UserError(f"this is not a stored config: {error}") from None
    config = ConfigDict(values)
    config.lock()
    return config


def with_defaults(config: ConfigDict) -> ConfigDict:
    """Returns `config` with the value of configs/base.py for every key that it lacks, locked.

    A stored config lacks the keys that are younger than it; their defaults keep what was before them.
    """
    filled = _run_file(shipped_configs()["base"])

    def update(target: ConfigDict, values: ConfigDict) -> None:
        for name, value in values.items():
            if isinstance(value, ConfigDict) and isinstance(target.get(name), ConfigDict):
                update(target[name], value)
            else:
                target[name] = value

    with filled.ignore_type():
        update(filled, config)
    filled.lock()
    return filled


def config_difference(a: ConfigDict, b: ConfigDict, ignore: Sequence[str] = ()) -> list[str]:
    """Lists where two configs differ, as lines `KEY: A != B` sorted by KEY.

    Args:
      a: one config.
      b: the other.
      ignore: dotted keys, or groups of keys, whose differences do not matter (`"train.steps"`, `"log"`).

    Returns:
      One line per differing value; a key that one side lacks shows as `absent` there. Empty when equal.
    """
    left, right = dict(_leaves(a)), dict(_leaves(b))
    lines = []
    for key in sorted(left.keys() | right.keys()):
        if any(key == name or key.startswith(f"{name}.") for name in ignore):
            continue
        if key not in left or key not in right or left[key] != right[key]:
            show_a, show_b = (repr(side[key]) if key in side else "absent" for side in (left, right))
            lines.append(f"{key}: {show_a} != {show_b}")
    return lines


def _names() -> str:
    return ", ".join(shipped_configs()) or "(no config is installed)"


def _locate(name: str) -> Path:
    """The file behind `--config=NAME`: a path first, then a shipped config's bare name."""
    if Path(name).is_file():
        return Path(name)
    shipped = shipped_configs()
    if name in shipped:
        return shipped[name]
    close = difflib.get_close_matches(Path(name).stem, shipped, n=1)
    hint = f"did you mean --config={close[0]}?" if close else f"the shipped ones are {_names()}"
    raise UserError(f"there is no config {name!r}: {hint}")


def _load_file(value: str) -> ConfigDict:
    """Runs the config file of `FILE[:ARGS]`."""
    name, *args = value.split(":", 1)
    file = _locate(name)
    try:
        config = _run_file(file, *args)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        # The file is the user's own program: whatever it raises is said in a line, its type included.
        raise UserError(f"--config={value} failed: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={value} failed: its get_config() must return a ConfigDict")
    return config


def _run_file(file: Path, *args: str) -> ConfigDict:
    return runpy.run_path(str(file))["get_config"](*args)


def _check_override(item: str, values: Mapping[str, Any]) -> None:
    """Raises UserError unless `--config.KEY[=VALUE]` names a value of the config."""
    flag = item.split("=", 1)[0]
    key = flag.split(".", 1)[-1]
    if key in values:
        return
    if any(name.startswith(f"{key}.") for name in values):
        raise UserError(f"{flag} is a group of values: give one of them, as {flag}.KEY=VALUE")
    close = difflib.get_close_matches(key, values, n=1) or _similar_ending(key, values)
    groups = ", ".join(dict.fromkeys(name.split(".")[0] for name in values))
    hint = f"did you mean --config.{close[0]}?" if close else f"at its top are {groups}"
    raise UserError(f"the config has no value {key!r}: {hint}")


def _check_tuple(item: str, values: Mapping[str, Any], config: ConfigDict) -> None:
    """Raises UserError if an override gave a tuple elements of a type that the default has not."""
    key = item.split("=", 1)[0].split(".", 1)[-1]
    default = values.get(key)
    if not isinstance(default, tuple) or not default:
        return
    kinds = {type(element) for element in default}
    allowed = kinds | {int} if float in kinds else kinds
    for element in dict(_leaves(config))[key]:
        if type(element) not in allowed:
            names = " or ".join(sorted(kind.__name__ for kind in kinds))
            raise UserError(f"{item}: {element!r} is not {names}, as in the default {default}")


def _similar_ending(key: str, values: Mapping[str, Any]) -> list[str]:
    """The keys whose last part is close to that of `key`, whatever their group."""
    endings = {name.rsplit(".", 1)[-1]: name for name in values}
    return [endings[end] for end in difflib.get_close_matches(key.rsplit(".", 1)[-1], endings, n=1)]


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values of a config with their dotted keys; an empty group counts as a value."""
    for name in sorted(config.keys()):
        key, value = f"{prefix}{name}", config[name]
        if isinstance(value, ConfigDict) and len(value):
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _encode(value: Any, key: str) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float and value - value == 0:  # finite
        return value
    if isinstance(value, tuple | list):
        items = [_encode(item, f"{key}[{i}]") for i, item in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    if isinstance(value, dict) and _TUPLE not in value and all(isinstance(name, str) for name in value):
        return {name: _encode(item, f"{key}.{name}".lstrip(".")) for name, item in value.items()}
    raise TypeError(f"config value {key} cannot be stored: {value!r}")


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {_TUPLE}:
            return tuple(_decode(item) for item in value[_TUPLE])
        return {name: _decode(item) for name, item in value.items()}
    return value


def read_config(path: str | os.PathLike[str]) -> ConfigDict:
    """Reads a file that holds `config_to_json`'s text.

    Raises:
      UserError: the file is missing or holds something else; the message names it.
    """
    try:
        return config_from_json(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: no config is stored there") from None
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
