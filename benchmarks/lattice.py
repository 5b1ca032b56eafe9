"""Do the outputs of a model repeat with a fixed lattice, as checkerboards do?

python benchmarks/lattice.py --workdir=runs/mine [--pairs=48]

For the detail of gray images (what a Gaussian of 2 pixels blurs away), averaged over images and over all
cells of p × p pixels: the deviation of the mean cell, in units of 1/255, beside what chance gives. A pattern
that is bound to the pixel grid stands out; texture that lies elsewhere in every image does not. The
anisotropy is the detail's power near the two axes of the spectrum over that elsewhere: plaid is above the
photos' value.
"""

import argparse

import numpy as np
from scipy.ndimage import gaussian_filter

from mscaflax.data.datasets import open_dataset
from mscaflax.data.pipeline import evaluation_pairs
from mscaflax.training.model import load_model

PERIODS = (2, 4, 8, 16)


def detail(images):
    """[n, h, w, 3] in [-1, 1] → [n, h, w], the detail of their gray, in units of 1/255."""
    gray = 127.5 * images.mean(axis=-1)
    return gray - gaussian_filter(gray, (0, 2, 2))


def lattice(x, period):
    """(deviation of the mean cell, that of noise without a lattice)."""
    n, h, w = (x.shape[0], *(side // period * period for side in x.shape[1:]))
    cells = x[:, :h, :w].reshape(n, h // period, period, w // period, period)
    return cells.mean(axis=(0, 1, 3)).std(), x.std() / np.sqrt(n * h * w / period**2)


def anisotropy(x):
    """Power within two bins of an axis over power elsewhere, above a fifth of the highest frequency."""
    h, w = x.shape[1:]
    window = np.hanning(h)[:, None] * np.hanning(w)
    power = (np.abs(np.fft.fft2(x * window)) ** 2).mean(axis=0)
    fy, fx = np.abs(np.fft.fftfreq(h, 1 / h))[:, None], np.abs(np.fft.fftfreq(w, 1 / w))[None]
    fine = np.hypot(fy / h, fx / w) > 0.1
    axis = fine & ((fy <= 2) | (fx <= 2))
    return power[axis].mean() / power[fine & ~axis].mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--pairs", type=int, default=48, help="default: 48")
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
    # Each with noise of its own: the same noise in all would stand out as a pattern does.
    rows = zip(*(pairs[key] for key in ("label", "exemplar", "exemplar_label")), strict=True)
    outputs = np.concatenate(
        [model.generate(*(x[None] for x in row), seed=seed) for seed, row in enumerate(rows)]
    )
    titles = ["images", "deviation", *(f"period {p} (chance)" for p in PERIODS), "anisotropy"]
    print("| " + " | ".join(titles) + " |\n| --- |" + " ---: |" * (len(titles) - 1))
    for name, images in (("targets", pairs["image"]), ("outputs", outputs)):
        x = detail(images)
        cells = [name, f"{x.std():.1f}"]
        cells += ["{:.2f} ({:.2f})".format(*lattice(x, period)) for period in PERIODS]
        print("| " + " | ".join([*cells, f"{anisotropy(x):.1f}"]) + " |")


if __name__ == "__main__":
    main()
