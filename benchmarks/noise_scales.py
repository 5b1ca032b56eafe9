"""What does the noise of each scale draw? The same pairs with the noise of some scales alone.

python benchmarks/noise_scales.py --workdir=runs/mine --output=noise.png [--pairs=32]

Prints PSNR and LPIPS against the targets (8-bit images), and writes a picture: a row per choice of
scales, enlarged four times.
"""

import argparse
import dataclasses

import jax
import numpy as np
from PIL import Image

from mscaflax.data.datasets import open_dataset
from mscaflax.data.pipeline import evaluation_pairs
from mscaflax.data.pixels import to_float, to_uint8
from mscaflax.evaluation.lpips import NETS, load_lpips, lpips
from mscaflax.training.model import load_model

COLUMNS, ZOOM, BATCH = 8, 4, 16


def strengths(count):
    """By name: the strength of every scale's noise, finest first."""
    choices = {"all scales": [1.0] * count, "no scale": [0.0] * count}
    choices |= {f"all but {i} (1/{2**i})": [float(k != i) for k in range(count)] for i in range(2)}
    return choices | {f"only {i} (1/{2**i})": [float(k == i) for k in range(count)] for i in range(3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--output", required=True, help="a PNG file")
    parser.add_argument("--pairs", type=int, default=32, help="default: 32")
    options = parser.parse_args()
    model = load_model(options.workdir)
    data = model.config.data
    pairs = evaluation_pairs(
        open_dataset(data.name, data.data_dir or None).source(data.val_split),
        count=options.pairs,
        size=data.size,
        num_classes=model.classes.num_classes,
        seed=0,
        side_range=tuple(data.side_range),
    )
    weights = {net: load_lpips(net) for net in NETS}
    distance = jax.jit(lpips)
    inputs = [pairs[key] for key in ("label", "exemplar", "exemplar_label")]
    rows = [pairs["image"][:COLUMNS]]
    print("| noise | PSNR, dB | " + " | ".join(f"LPIPS-{net}" for net in NETS) + " |")
    print("| --- |" + " ---: |" * (1 + len(NETS)))
    for name, values in strengths(model.network.num_scales).items():
        network = model.network.clone(synthesis_noise=tuple(values))
        generate = dataclasses.replace(model, network=network).generate
        outputs = np.concatenate(
            [generate(*(x[i : i + BATCH] for x in inputs)) for i in range(0, options.pairs, BATCH)]
        )
        outputs = to_float(to_uint8(outputs))
        squared = ((outputs - pairs["image"]) ** 2).mean(axis=(1, 2, 3)) / 4
        scores = [f"{-10 * np.log10(squared).mean():.2f}"]
        for net in NETS:
            scores.append(f"{np.mean(distance(weights[net], outputs, pairs['image'])):.4f}")
        print(f"| {name} | " + " | ".join(scores) + " |", flush=True)
        rows.append(outputs[:COLUMNS])
    picture = to_uint8(np.concatenate([np.concatenate(list(row), axis=1) for row in rows]))
    picture = picture.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
    Image.fromarray(picture).save(options.output, format="PNG")


if __name__ == "__main__":
    main()
