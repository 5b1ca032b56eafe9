"""The numbers of metrics.json as Markdown: one row per kind of exemplar, small tables beside the main one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mscaflax.evaluation.reconstruction import MIN_EXEMPLAR_SHARE

# Column title of a metric, its format, and which way is better.
_FULL_REFERENCE = {
    "psnr": ("PSNR, dB ↑", ".2f"),
    "ssim": ("SSIM ↑", ".3f"),
    "lpips_vgg": ("LPIPS-VGG ↓", ".3f"),
    "lpips_alex": ("LPIPS-Alex ↓", ".3f"),
}
_METRICS = _FULL_REFERENCE | {
    "style_relevance": ("style relevance ↑", ".3f"),
    "semantic_consistency": ("semantic consistency ↑", ".3f"),
}
_KINDS = {
    "cross": "the other patch of the photo",
    "self": "the target itself",
    "retrieved": "retrieved: another photo, alike in its label map",
    "random": "random: any other photo",
}
_AGREEMENT = {
    "pixel_accuracy": "pixel accuracy ↑",
    "mean_iou": "mIoU ↑",
    "mean_iou_lost": "mIoU lost against the other patch ↓",
}
_SWAP = {"outputs": "outputs", "real": "real patches", "truth": "true pictures"}
_EXTRACTORS = {
    "vgg16": ("Fréchet distance on VGG-16 ↓", "KID on VGG-16 ↓"),
    "inception": ("FID ↓", "KID on Inception-v3 ↓"),
}


def _cell(value: Mapping[str, float] | None, form: str) -> str:
    if value is None:
        return "–"
    if value["low"] is None:
        return f"{value['mean']:{form}}"
    return f"{value['mean']:{form}} ({value['low']:{form}}–{value['high']:{form}})"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> list[str]:
    rule = "| " + " | ".join(["---"] * text_columns + ["---:"] * (len(titles) - text_columns)) + " |"
    return ["", "| " + " | ".join(titles) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)]


def _metric_cells(values: Mapping[str, Any], names: Iterable[str], prefix: str = "") -> list[str]:
    return [_cell(values.get(prefix + name), _METRICS[name][1]) for name in names]


def _count(values: Mapping[str, Any], prefix: str) -> str:
    """How many images have pixels under the mask that `prefix` stands for."""
    measured = values[f"{prefix}psnr"]
    return "0" if measured is None else str(measured.get("n", values["n"]))


def _found(rows: Mapping[str, Mapping[str, Any]], metrics: Iterable[str]) -> list[str]:
    return [name for name in metrics if any(name in row for row in rows.values())]


def _main(report: Mapping[str, Any]) -> list[str]:
    names = _found(report["metrics"], _METRICS)
    rows = [
        [_KINDS[kind], str(values["n"]), *_metric_cells(values, names)]
        for kind, values in report["metrics"].items()
    ]
    lines = [
        f"{report['dataset']['name']}, {report['dataset']['split']} split, {report['size']}×{report['size']} "
        f"pixels, step {report['step']}; in parentheses the 95% bootstrap "
        "interval over photos.",
        *_table(["exemplar", "n", *(_METRICS[name][0] for name in names)], rows),
    ]
    dataset = report["dataset"]
    if dataset["trained_on"] not in (None, dataset["fingerprint"]):
        lines += [
            "",
            "Beware: the dataset was prepared anew since the model was trained, which may have seen these "
            "photos.",
        ]
    real = report["real"].get("style_relevance")
    if real is not None:
        lines += ["", f"Style relevance of the real targets to the other patch: {_cell(real, '.3f')}."]
    return lines


def _true_answers(true_answers: Mapping[str, Any] | None) -> list[str]:
    if true_answers is None:
        return []
    names = _found(true_answers, _METRICS)
    rows = [[_KINDS[kind], str(row["n"]), *_metric_cells(row, names)] for kind, row in true_answers.items()]
    return [
        "",
        "What the true answers themselves have, the measure of the outputs' values. More style relevance "
        "than theirs is tone that an output takes over although its layout would have another one.",
        *_table(["exemplar", "n", *(_METRICS[name][0] for name in names)], rows),
    ]


def _truth(truth: Mapping[str, Any] | None) -> list[str]:
    if truth is None:
        return []
    names = _found(truth, _FULL_REFERENCE)
    rows = []
    for kind, values in truth.items():
        share = f"known, {values['known_pixels']['mean']:.0%}"
        for pixels, prefix in (("all", ""), (share, "masked_")):
            rows.append([_KINDS[kind], pixels, _count(values, prefix), *_metric_cells(values, names, prefix)])
    return [
        "",
        "Against the true answer, the target's layout drawn in the exemplar's style. Known: the pixels whose "
        f"class covers at least {MIN_EXEMPLAR_SHARE:.0%} of the exemplar.",
        *_table(["exemplar", "pixels", "n", *(_METRICS[name][0] for name in names)], rows, text_columns=2),
    ]


def _overlap(bins: Mapping[str, Any] | None) -> list[str]:
    if bins is None:
        return []
    names = _found(bins, _FULL_REFERENCE)
    rows = []
    for name, values in bins.items():
        for pixels, prefix in (("all", ""), ("known", "masked_"), ("missing", "missing_")):
            rows.append([name, pixels, _count(values, prefix), *_metric_cells(values, names, prefix)])
    return [
        "",
        "Against the true answer, by class overlap: the share of the target whose class occurs in the "
        "exemplar. Missing: the pixels whose class does not.",
        *_table(["overlap", "pixels", "n", *(_METRICS[name][0] for name in names)], rows, text_columns=2),
    ]


def _swap(swap: Mapping[str, Any] | None) -> list[str]:
    if swap is None:
        return ["", "No swap test: it needs three different photos."]
    rows = [
        [
            _SWAP[name],
            f"{values['counted']} of {values['n']}",
            *(_cell(values[part], ".1%") for part in ("all", "half")),
        ]
        for name, values in swap.items()
    ]
    return [
        "",
        "Swap test, share of triples in which the style follows the exemplar (chance 50%). Half: of the "
        f"triples counted in all rows, the {swap['outputs']['half_n']} whose exemplars differ most.",
        *_table(["images", "counted", "all", "half"], rows),
    ]


def _distances(distances: Mapping[str, Any] | None) -> list[str]:
    if distances is None:
        return []
    extractors = list(next(iter(distances.values())))
    rows, warnings = [], []
    for kind, found in distances.items():
        row = [_KINDS[kind], str(found[extractors[0]]["n"])]
        for name in extractors:
            value = found[name]
            error = "" if value["kid_error"] is None else f" ± {value['kid_error']:.3g}"
            row += [f"{value['frechet']:.2f}", f"{value['kid']:.3g}{error}"]
            if value["warning"] and value["warning"] not in warnings:
                warnings.append(value["warning"])
        rows.append(row)
    titles = [
        title for name in extractors for title in _EXTRACTORS.get(name, (f"Fréchet, {name}", f"KID, {name}"))
    ]
    return [
        "",
        "Distances of the outputs from the real targets, as sets; KID with its standard error.",
        *_table(["exemplar", "n", *titles], rows),
        *(line for warning in warnings for line in ("", f"Beware: {warning}.")),
    ]


def _inception(identity: Mapping[str, Any] | None) -> list[str]:
    if identity is None or identity["original"]:
        return []
    return [
        "",
        "Beware: the weights behind FID come from another file than pytorch-fid's "
        f"(SHA-256 {identity['sha256']}): it is FID only if they are the same weights.",
    ]


def _segmentation(found: Mapping[str, Any] | None, workdir: str) -> list[str]:
    if found is None:
        return [
            "",
            f"No segmentation scores: train a segmenter by `mscaflax segmenter --workdir={workdir}`, then "
            "evaluate again.",
        ]
    titles = {"real": "real targets"} | _KINDS
    rows = []
    for kind, title in titles.items():
        if kind in found:
            scores = found[kind] or {}
            rows.append([title, *(_cell(scores.get(name), ".1%") for name in _AGREEMENT)])
    return [
        "",
        "How well a segmenter, trained on real images, finds the label map again.",
        *_table(["images", *_AGREEMENT.values()], rows),
    ]


def _guessed(guesser: Mapping[str, Any]) -> list[str]:
    return [f"The exemplars' label maps are guesses of the segmenter of seed {guesser['seed']}.", ""]


def table(report: Mapping[str, Any], workdir: str) -> str:
    """The report as Markdown.

    Args:
      report: what metrics.json holds.
      workdir: of the model, for the command that adds what is missing.
    """
    guesser = report["exemplar_labels_by"]
    lines = [
        *([] if guesser is None else _guessed(guesser)),
        *_main(report),
        *_true_answers(report["true_answers"]),
        *_truth(report["truth"]),
        *_overlap(report["overlap"]),
        *_swap(report["swap"]),
        *_distances(report["distances"]),
        *_inception(report["inception"]),
        *_segmentation(report["segmentation"], workdir),
    ]
    return "\n".join(lines) + "\n"
