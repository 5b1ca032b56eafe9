"""What two evaluations of the same pairs differ by, pair by pair.

python benchmarks/paired_difference.py BEFORE AFTER [--metrics=psnr,lpips_alex]

BEFORE and AFTER are folders that `mscaflax evaluate --output` wrote: of two models, or of one with and
without `--guess_labels`. Prints the mean of (AFTER - BEFORE) over pairs with its 95% interval for other
target photos and foreign exemplars, by kind of exemplar and by class overlap; a star marks an interval
without zero. The pairs are the same, so what a pair adds to both cancels: such an interval is far narrower
than those of the two means.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from markdown_tables import cell, markdown
from study_pairs import is_sure, photos_of

from mscaflax.evaluation.metrics import summarize

GROUPS = ("metrics", "truth", "overlap")  # of values.json


def differences(before, after, metrics):
    """Rows [group, kind, n, a cell per metric] of two contents of values.json.

    Raises:
      ValueError: they are of different pairs.
    """
    if (before["pairs_sha256"], before["bins"]) != (after["pairs_sha256"], after["bins"]):
        raise ValueError(
            "the evaluations are of different pairs: give both the same --pairs, --seed and --split"
        )
    rows = []
    for group in GROUPS:
        for kind in before.get(group, {}):
            row = []
            photos, exemplars = photos_of(before, group, kind)
            for metric in metrics:
                values = [np.array(x[group].get(kind, {}).get(metric, []), float) for x in (before, after)]
                found = None
                if all(map(len, values)):
                    found = summarize(values[1] - values[0], photos, exemplars=exemplars)
                row.append(cell(found, "+.4f") + (" *" if is_sure(found) else ""))
            if set(row) != {cell(None, "")}:
                rows.append([group, kind, str(len(photos)), *row])
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("before", type=Path, help="folder of an evaluation")
    parser.add_argument("after", type=Path, help="folder of the other one")
    parser.add_argument("--metrics", default="psnr,lpips_alex", help="default: psnr,lpips_alex")
    options = parser.parse_args()
    metrics = options.metrics.split(",")
    try:
        contents = [json.loads((x / "values.json").read_text()) for x in (options.before, options.after)]
        rows = differences(*contents, metrics)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if not rows:
        parser.error(f"the evaluations have no values of {options.metrics}")
    print("\n".join(markdown(["values of", "exemplar or overlap", "n", *metrics], rows)))


if __name__ == "__main__":
    main()
