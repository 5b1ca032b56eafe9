"""Reports of `mscaflax compile` side by side, as a Markdown table.

mscaflax compile --config=coco_stuff256 --topology=v5e:4x4 --per_device_batch=8 --output=docs/compiled/A.json
python benchmarks/compile_table.py docs/compiled/*.json
"""

import argparse
import json
from pathlib import Path


def batch_of(report):
    """Examples of each device, and in which way it differs from the usual; older reports lack the latter."""
    found = str(report["batch_size"] // report["devices"])
    found += f" in {report['accumulate']} parts" if report.get("accumulate", 1) > 1 else ""
    found += ", remat" if report.get("remat") else ""
    found += f", fsdp {report['fsdp']}" if report.get("fsdp", 1) > 1 else ""
    found += "" if report.get("fold_columns", True) else ", not folded"
    found += ", spade" if report.get("modulation") == "spade" else ""
    options = report.get("tpu_options")
    own = options is not None and not any(option.startswith("xla_msa_") for option in options)
    return found + (", compiler's own copies" if own else "")


COLUMNS = {
    "slice": lambda r: r["topology"],
    "devices": lambda r: str(r["devices"]),
    "batch of each": batch_of,
    "memory, of the device's": lambda r: f"{r['memory']['total'] / 1e9:.2f} GB, {r['memory']['share']:.0%}",
    "temporaries": lambda r: f"{r['memory']['temporaries'] / 1e9:.2f} GB",
    "arithmetic": lambda r: f"{r['flops'] / 1e12:.2f} TFLOP, {r['compute_seconds'] * 1e3:.1f} ms",
    "floor": lambda r: f"{r['traffic_floor'] / 1e9:.1f} GB",
    "bytes moved, of the floor": lambda r: f"{r['bytes_moved'] / 1e9:.1f} GB, {r['traffic_ratio']:.2f} ×",
    "over HBM, of the floor": lambda r: f"{r['hbm_bytes'] / 1e9:.1f} GB, {r['hbm_ratio']:.2f} ×",
    "HBM's time": lambda r: f"{r['memory_seconds'] * 1e3:.1f} ms",
    "collectives": lambda r: f"{sum(row['bytes'] for row in r['collectives'].values()) / 1e9:.2f} GB",
    "images/s at most": lambda r: f"{r['images_per_second']:,.0f}",
    "compiled in": lambda r: f"{r['compile_seconds'] / 60:.0f} min",
}


def row_of(cells):
    return f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("reports", type=Path, nargs="+", help="JSON of `mscaflax compile --output`")
    reports = [json.loads(path.read_text()) for path in parser.parse_args().reports]
    reports.sort(key=lambda r: (r["topology"], r["batch_size"], batch_of(r)))
    print(row_of(COLUMNS))
    print(row_of(["---", *["---:"] * (len(COLUMNS) - 1)]))
    for report in reports:
        print(row_of([cell(report) for cell in COLUMNS.values()]))


if __name__ == "__main__":
    main()
