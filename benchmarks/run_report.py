"""What a run's TensorBoard events say: speed, memory, attention health, and the loss curves as a picture.

python benchmarks/run_report.py --workdir=runs/demo --output=curves.png       # needs '.[docs]'
"""

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from run_scalars import read_scalars

CURVES = (
    ("reconstruction", ("loss/l1", "loss/perceptual", "loss/feature_matching")),
    ("adversarial", ("loss/adversarial", "loss/discriminator")),
    ("gradient norms", ("norm/generator_gradients", "norm/discriminator_gradients")),
)
HEALTH = ("alpha_positions", "beta_regions", "regions_used", "gamma_mean", "gamma_spread", "value_cosine")


def draw_curves(scalars, path):
    """Saves the curves; each thin, with its running mean over a twentieth of the points on top."""
    figure, axes = plt.subplots(1, len(CURVES), figsize=(13, 3.6), constrained_layout=True)
    for axis, (title, names) in zip(axes, CURVES, strict=True):
        for name in names:
            steps, values, _ = scalars[name]
            window = max(1, len(values) // 20)
            smooth = np.convolve(values, np.ones(window) / window, mode="valid")
            (line,) = axis.plot(steps, values, alpha=0.25, linewidth=0.8)
            axis.plot(steps[window - 1 :], smooth, color=line.get_color(), label=name.split("/")[1])
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--output", required=True, help="PNG of the curves")
    arguments = parser.parse_args()
    scalars = read_scalars(arguments.workdir)
    draw_curves(scalars, arguments.output)
    steps, speed, times = scalars["train/pairs_per_second"]
    print(f"steps {steps[-1]}, {(times[-1] - times[0]) / 60:.1f} minutes from the first to the last log line")
    print(f"pairs/s: median {np.median(speed):.2f}, lowest {speed.min():.2f}, highest {speed.max():.2f}")
    print(f"waiting for data: {100 * np.mean(scalars['train/data_wait_share'][1]):.2f}% of the time")
    print(f"peak memory: {scalars['train/peak_memory_gb'][1].max():.2f} GB")
    print("\n| scale | " + " | ".join(HEALTH) + " |\n| --- |" + " ---: |" * len(HEALTH))
    scale = 0
    while f"attention{scale}/{HEALTH[0]}" in scalars:
        values = [scalars[f"attention{scale}/{name}"][1][-1] for name in HEALTH]
        print(f"| {scale} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
        scale += 1


if __name__ == "__main__":
    main()
