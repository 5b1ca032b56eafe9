from pathlib import Path

import pytest

from mscaflax.files import write_atomically


def test_text_and_bytes_with_the_usual_permissions(tmp_path):
    write_atomically(tmp_path / "text", "für")
    write_atomically(tmp_path / "bytes", b"\x00\xff")
    assert (tmp_path / "text").read_text(encoding="utf-8") == "für"
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    (tmp_path / "plain").touch()
    assert (tmp_path / "text").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in Path(tmp_path).iterdir()] == ["file"]
