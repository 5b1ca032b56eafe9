"""Compiled programs that outlast the studio: where they are kept, and where they are not."""

import jax
import pytest

from mscaflax.apps.studio.programs import keep_programs

SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    """JAX was told of no folder; its settings are put back afterwards."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    for name in SETTINGS:
        monkeypatch.delenv(name.upper(), raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    folder = tmp_path / "caches/mscaflax/programs"
    assert keep_programs() == folder and folder.stat().st_mode & 0o077 == 0
    assert jax.config.jax_compilation_cache_dir == str(folder)


def test_without_a_folder_for_caches_it_is_in_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert keep_programs() == tmp_path / ".cache/mscaflax/programs"


@pytest.mark.parametrize("told", ["elsewhere", ""])
def test_a_set_variable_wins(told, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", told)
    assert keep_programs() is None and jax.config.jax_compilation_cache_dir is None
    assert not any(tmp_path.iterdir())


def test_jax_own_setting_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    assert keep_programs() is None and jax.config.jax_compilation_cache_dir == "elsewhere"
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_does_no_harm(monkeypatch, tmp_path):
    # Permissions do not keep root out; a file in the way keeps out everyone.
    (tmp_path / "mscaflax").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert keep_programs() is None and jax.config.jax_compilation_cache_dir is None
