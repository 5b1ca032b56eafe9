"""Runs compared pair by pair: the pairs are the same for all of them."""

import numpy as np
from markdown_tables import cell, markdown

from mscaflax.errors import UserError
from mscaflax.evaluation.metrics import summarize

# What is compared pair by pair: by group of values.json, the kinds of exemplar (None: all, the bins).
PAIRED = {"truth": ("random",), "metrics": ("cross",), "overlap": None}
PAIRED_METRICS = ("lpips_alex", "psnr")
PAIRED_NOTE = (
    "The 95% intervals are for other target photos and, where they are not the same, other exemplar photos, "
    "of the mean over these seeds; in brackets each seed's own difference. A star: zero is outside of the "
    "interval, and all seeds have one sign."
)


def paired(runs, others, group, kind, metric):
    """The mean over pairs of (others - runs), each its seeds' mean, with its 95% interval.

    The pairs are the same for all runs, so what a pair adds to both cancels: the interval of the difference
    is far narrower than those of the two means. It is that
    of other targets and foreign exemplars, not of other seeds.

    Args:
      runs, others: values of as many runs, of `study.compared_values`; of one list of pairs.

    Returns:
      {"mean", "low", "high", "seeds"}, the last the difference of each two runs; None where one of them has
      no such values.

    Raises:
      UserError: the runs were evaluated on different pairs.
    """
    every = [*runs, *others]
    if len({values["pairs_sha256"] for values in every}) != 1:
        raise UserError(
            "runs of one table were evaluated on different pairs: delete the older ones' files in docs/study "
            "and run them again"
        )
    if any(not values.get(group, {}).get(kind) for values in every):
        return None

    def stacked(some):
        return np.stack([np.array(v[group][kind][metric], float) for v in some])

    apart = stacked(others) - stacked(runs)
    photos, exemplars = photos_of(every[0], group, kind)
    return summarize(apart.mean(0), photos, exemplars=exemplars) | {"seeds": apart.mean(1).tolist()}


def photos_of(values, group, kind):
    """The photos of the targets and those of the exemplars of some values, int [n] each.

    The latter are None where an exemplar comes from its target's photo.
    """
    photos = np.array(values["photos"])
    if group == "overlap":
        targets, exemplars = np.array(values["bins"][kind], int).reshape(-1, 2).T
        return photos[targets], photos[exemplars]
    chosen = values["exemplars"].get(kind)
    return photos, None if chosen is None else np.array(chosen)


def is_sure(found):
    """Whether a difference, of `paired` or `summarize`, is beyond its interval, of one sign in all seeds."""
    if not found or found["low"] is None or found["low"] * found["high"] <= 0:
        return False
    return all(one * found["mean"] > 0 for one in found.get("seeds", ()))


def differences(values, rivals, group="truth", kinds=("random",), reference="msca"):
    """How much worse (LPIPS) and how much lower (PSNR) each rival is than the reference, pair by pair.

    Of the seeds that both have, since a seed shifts all pairs of a run. By how much, the last rows show: the
    reference's other seeds against its first one.

    `values` {name: {seed: values of the run}}; see `PAIRED_NOTE`.
    """
    own = values.get(reference, {})
    compared = []
    for name in rivals:
        shared = sorted(own.keys() & values.get(name, {}).keys())
        if name != reference and shared:
            runs, others = [own[seed] for seed in shared], [values[name][seed] for seed in shared]
            compared.append((f"{name} against {reference}", len(shared), runs, others))
    first, *more = sorted(own) or [None]
    for seed in more:
        compared.append((f"{reference}, seed {seed} against seed {first}", 1, [own[first]], [own[seed]]))
    rows = []
    for title, seeds, runs, others in compared:
        cells = [title, str(seeds)]
        for kind in kinds:
            for metric, form in zip(PAIRED_METRICS, ("+.4f", "+.2f"), strict=True):
                found = paired(runs, others, group, kind, metric)
                each = ""
                if found and len(found["seeds"]) > 1:
                    each = " [" + ", ".join(f"{one:{form}}" for one in found["seeds"]) + "]"
                cells.append(cell(found, form) + (" *" if is_sure(found) else "") + each)
        rows.append(cells)
    titles = ["", "seeds"]
    for kind in kinds:
        place = f"{kind}: " if len(kinds) > 1 else ""
        titles += [f"{place}LPIPS-Alex, more is worse", f"{place}PSNR, dB, less is worse"]
    return markdown(titles, rows) if rows else []
