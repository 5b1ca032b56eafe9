"""Tables and pictures of the study, from the numbers of its finished runs."""

import io
import json
import statistics

import numpy as np
import study_plan
from markdown_tables import cell, markdown, pick
from PIL import Image
from study_pairs import PAIRED_NOTE, differences

from mscaflax.data.grids import Column, picture_grid
from mscaflax.evaluation.overlap import BINS
from mscaflax.files import write_atomically

# (title, the place in a run's numbers, format)
TRUTH = (
    ("truth LPIPS-Alex ↓", ("truth", "random", "lpips_alex"), ".4f"),
    ("truth LPIPS-VGG ↓", ("truth", "random", "lpips_vgg"), ".4f"),
    ("truth PSNR, dB ↑", ("truth", "random", "psnr"), ".2f"),
    ("truth SSIM ↑", ("truth", "random", "ssim"), ".4f"),
)
RECONSTRUCTION = (
    ("cross LPIPS-Alex ↓", ("metrics", "cross", "lpips_alex"), ".3f"),
    ("cross LPIPS-VGG ↓", ("metrics", "cross", "lpips_vgg"), ".3f"),
    ("cross PSNR, dB ↑", ("metrics", "cross", "psnr"), ".2f"),
    ("self LPIPS-Alex ↓", ("metrics", "self", "lpips_alex"), ".3f"),
)
STYLE = (
    ("swap test ↑", ("swap", "outputs", "all"), ".1%"),
    ("style relevance ↑", ("metrics", "random", "style_relevance"), ".3f"),
    ("Fréchet on VGG-16 ↓", ("distances", "random", "vgg16", "frechet"), ".2f"),
    ("KID on VGG-16 ↓", ("distances", "random", "vgg16", "kid"), ".4f"),
    ("mIoU ↑", ("segmentation", "random", "mean_iou"), ".3f"),
    ("pixel accuracy ↑", ("segmentation", "random", "pixel_accuracy"), ".3f"),
)
# The segmenter's own scores, the measure of the outputs'.
REAL = (
    ("mIoU", ("segmentation", "real", "mean_iou"), ".3f"),
    ("pixel accuracy", ("segmentation", "real", "pixel_accuracy"), ".3f"),
)
# Of each alignment on scenes and of each ablation.
SUMMARY = (*TRUTH, STYLE[0], STYLE[4])
COST = (
    ("parameters", ("training", "parameters", "all"), ",d"),
    ("of the alignment", ("training", "parameters", "aligner"), ",d"),
    ("pairs/s", ("training", "pairs_per_second"), ".1f"),
    ("peak GB", ("training", "peak_memory_gb"), ".1f"),
    ("commit", ("commit",), ""),
)


def compare(rows, columns):
    """Rows {title: numbers} as a table; columns that no row has are left out."""
    shown = [c for c in columns if any(pick(numbers, c[1]) is not None for numbers in rows.values())]
    body = [[title, *(cell(pick(n, path), form) for _, path, form in shown)] for title, n in rows.items()]
    return markdown(["", *(title for title, _, _ in shown)], body) if rows else []


def over_seeds(found):
    """The mean over seeds of each alignment on scenes, with the seeds' deviation."""

    def picked(path, runs):
        return [pick(run, path) for run in runs]

    every = [run for name, run in found.items() if name.startswith("scenes-")]
    columns = [column for column in SUMMARY if None not in picked(column[1], every)]
    rows = []
    for name, (_, seeds) in study_plan.ALIGNMENTS.items():
        runs = [found[key] for seed in range(seeds) if (key := f"scenes-{name}-seed{seed}") in found]
        if not runs:
            continue
        cells = [name, str(len(runs))]
        for _, path, form in columns:
            values = [value["mean"] if isinstance(value, dict) else value for value in picked(path, runs)]
            spread = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):{form}}{spread}")
        rows.append(cells)
    titles = ["", "seeds", *(title for title, _, _ in columns)]
    return markdown(titles, rows) if rows else []


def by_overlap(rows):
    """Truth LPIPS-Alex and PSNR by class overlap; pixels of classes that the exemplar lacks apart."""
    columns = [
        (f"{bin_name}: {title}", ("overlap", bin_name, metric), form)
        for bin_name in BINS
        for title, metric, form in (
            ("LPIPS-Alex", "lpips_alex", ".4f"),
            ("PSNR", "psnr", ".2f"),
            ("PSNR of missing classes", "missing_psnr", ".2f"),
        )
    ]
    rows = {title: numbers for title, numbers in rows.items() if numbers.get("overlap")}
    return compare(rows, columns)


def real_scores(rows):
    """One line: what the segmenter that judged these runs finds in the real pictures."""
    # Of older runs the means alone are there.
    scores = {tuple(_mean_cell(pick(row, path), form) for _, path, form in REAL) for row in rows.values()}
    found = [
        ", ".join(f"{title} {value}" for (title, _, _), value in zip(REAL, s, strict=True)) for s in scores
    ]
    return ["The real pictures, by the same segmenter: " + "; or ".join(sorted(found)) + ".", ""]


def _mean_cell(value, form):
    return cell(value["mean"] if isinstance(value, dict) else value, form)


def hours(found):
    """A sentence on the time of all runs, of training (by its speed) and evaluating."""
    taken = []
    for run in found.values():
        settings, speed = run["config"]["train"], run["training"]["pairs_per_second"]
        taken.append(settings["steps"] * settings["batch_size"] / speed + run["seconds"])
    return (
        f"Training and evaluating took {sum(taken) / 3600:.1f} hours in all, the longest run "
        f"{max(taken) / 60:.0f} minutes (compiling and the segmenters not counted)."
    )


def distance_warnings(found):
    """Lines with what the evaluations say of their Fréchet distances."""
    places = [pick(run, ("distances", "random", "vgg16", "warning")) for run in found.values()]
    return [line for text in sorted({text for text in places if text}) for line in ("", f"Beware: {text}.")]


def titled(title, lines):
    """A table under its title; nothing where there are no rows yet."""
    return [title, *lines] if lines else []


def ablation_differences(values):
    """Every finished ablation against the unchanged network, pair by pair; `values` of `read_values`."""
    every = range(max(study_plan.ABLATION_SEEDS.values()))
    names = {"unchanged": {seed: study_plan.unchanged_run(seed) for seed in every}}
    for group, variants in study_plan.ABLATIONS.items():
        for value, change in variants.items():
            if change:
                seeds = range(study_plan.ABLATION_SEEDS.get(group, 1))
                names[f"{group} {value}"] = {s: study_plan.ablation_run(group, value, s) for s in seeds}
    by_name = {
        title: {seed: values[run] for seed, run in seeds.items() if run in values}
        for title, seeds in names.items()
    }
    tables = {"truth": ("random",), "overlap": tuple(BINS)}
    found = [differences(by_name, by_name, *table, reference="unchanged") for table in tables.items()]
    title = (
        "Pair by pair against the unchanged network; random exemplars, then by class overlap. "
        f"{PAIRED_NOTE} The last rows, of one network, show how much a seed alone changes: of a single seed "
        "a star is no proof."
    )
    return titled(f"### All of them\n\n{title}", [line for part in found for line in part])


def picture(folder, size=64):
    """Outputs of all alignments on the same layouts and exemplars, beside the truth; None without any."""

    def strip(name):
        row = np.asarray(Image.open(folder / "pictures" / f"{name}.png").convert("RGB"))
        return np.stack(np.split(row, row.shape[1] // size, axis=1))

    shown = [
        name for name in study_plan.ALIGNMENTS if (folder / "pictures" / f"scenes-{name}-seed0.png").exists()
    ]
    if not shown:
        return None
    columns = [
        Column("label map", strip(f"label-{size}"), flat=True),
        Column("exemplar", strip(f"exemplar-{size}")),
        Column("truth", strip(f"truth-{size}")),
    ]
    return picture_grid(columns + [Column(name, strip(f"scenes-{name}-seed0")) for name in shown])


def read_values(folder, found):
    """The compared values of the finished runs that have them, by name of the run."""
    files = {name: folder / "values" / f"{name}.json" for name in found}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def write(folder):
    """Writes study.md beside `folder`, and the picture into it."""
    planned = study_plan.runs()
    found = {
        run.name: json.loads((folder / f"{run.name}.json").read_text())
        for run in planned
        if study_plan.is_done(run, folder)
    }
    if not found:
        print("no run is finished")
        return

    def table(name):
        return {
            run.name.removeprefix(f"{name}-"): found[run.name]
            for run in planned
            if run.table == name and run.name in found
        }

    lines = [
        "# The study",
        "",
        f"Written by `python benchmarks/study.py tables`; {len(found)} of {len(planned)} runs are finished. "
        "`python benchmarks/study.py run` trains and measures the others; `benchmarks/study_plan.py` says "
        "what they are. Runs of one table have the same steps and data, and seed 0 where no other is named; "
        "in parentheses the 95% bootstrap interval over photos, which does not know what a seed changes. "
        "Truth: against the target's layout drawn in the style of a random "
        "exemplar, on the test split, whose layouts and styles no training saw; but γ's inputs and the "
        "hidden classes were chosen after a look at earlier runs on these pairs. pairs/s are no comparison "
        "of speed: runs may have shared their machine with other work. The intervals of single runs hold the "
        f"exemplars fixed. {hours(found)}",
        *distance_warnings(found),
    ]
    scenes = table("scenes")
    if scenes:
        lines += ["", "## Alignments on scenes, 64×64", "", "Means over seeds, ± the seeds' deviation:"]
        lines += over_seeds(found)
        drawn = picture(folder)
        if drawn is not None:
            picture_file = io.BytesIO()
            drawn.save(picture_file, "PNG", optimize=True)
            write_atomically(folder / "scenes.png", picture_file.getvalue())
            lines += ["![Outputs of the alignments beside the truth](study/scenes.png)", ""]
        lines += ["Each run:", *compare(scenes, TRUTH), *compare(scenes, RECONSTRUCTION)]
        lines += [*compare(scenes, STYLE), *real_scores(scenes), *compare(scenes, COST)]
        values = read_values(folder, found)
        by_name = {
            name: {
                seed: values[key] for seed in range(seeds) if (key := f"scenes-{name}-seed{seed}") in values
            }
            for name, (_, seeds) in study_plan.ALIGNMENTS.items()
        }
        lines += titled(
            f"Pair by pair. {PAIRED_NOTE} The last rows, of one network, show how much a seed alone changes:",
            differences(by_name, study_plan.ALIGNMENTS),
        )
        lines += ["By class overlap, the share of the target whose class occurs in the exemplar:"]
        lines += by_overlap(scenes)
        lines += titled(
            "The same pair by pair:", differences(by_name, study_plan.ALIGNMENTS, "overlap", tuple(BINS))
        )
    for name in ("facade", "camvid"):
        if rows := table(name):
            lines += ["", f"## {name}, 64×64, validation split", *compare(rows, RECONSTRUCTION)]
            lines += [*compare(rows, STYLE), *real_scores(rows), *compare(rows, COST)]
            values = {run.removeprefix(f"{name}-"): {0: v} for run, v in read_values(folder, found).items()}
            lines += titled(
                "Cross reconstruction, pair by pair:", differences(values, rows, "metrics", ("cross",))
            )
    if rows := table("ablations"):
        lines += ["", "## Ablations of `msca` on scenes, 32×32"]
        for group, variants in study_plan.ABLATIONS.items():
            names = {value: study_plan.ablation_run(group, value) for value in variants}
            part = {value: found[name] for value, name in names.items() if name in found}
            # Not their speed: see the note on pairs/s; benchmarks/modulation_cost.py compares modulations.
            cost = [column for column in COST if column[0] in ("parameters", "commit")]
            lines += ["", f"### {group}", *compare(part, (*SUMMARY, *cost))]
            if group in ("mask_fill", "hidden classes"):
                lines += by_overlap(part)
        lines += ablation_differences(read_values(folder, found))
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    write_atomically(folder.parent / "study.md", text.strip() + "\n")
