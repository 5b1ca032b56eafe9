"""Which loss pulls how hard at the image? For a trained workdir, and one training batch.

python benchmarks/loss_gradients.py --workdir=runs/mine

Prints, for each weighted loss of the generator and each VGG tap inside the perceptual one, its value, the
norm of its gradient by the output image, the share of that gradient's power at high spatial frequencies
(above 0.2 cycles per pixel along an axis) and the share in the green-magenta direction. A term whose
gradient dwarfs the others decides alone what textures look like.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from mscaflax.nets.vgg import vgg16_taps
from mscaflax.training import losses
from mscaflax.training.checkpoint import Checkpoints
from mscaflax.training.description import load_description
from mscaflax.training.step import example_keys, photo_taps
from mscaflax.training.synthesis import SynthesisTask

HIGH = 0.2
GREEN_MAGENTA = np.array([-1, 2, -1]) / np.sqrt(6)


def weighted_terms(experiment, state, vgg, batch, real_taps):
    """By name: image [b, h, w, 3] → the weighted loss."""
    weights = experiment.loss
    variables = {"params": state.discriminator, "batch_stats": state.spectral}

    def judge(image):
        return experiment.discriminator.apply(variables, image, batch["label"])

    reals = [features for _, features in judge(batch["image"])]

    def feature_matching(image):
        return losses.feature_matching(reals, [features for _, features in judge(image)])

    def tap(i):
        weight = weights.perceptual * weights.perceptual_taps[i]
        return lambda image: weight * losses.l1_mean(vgg16_taps(vgg, image)[i], real_taps[i])

    return {
        "adversarial": lambda x: weights.adversarial * losses.hinge_generator([y for y, _ in judge(x)]),
        "feature matching": lambda x: weights.feature_matching * feature_matching(x),
        "L1": lambda x: weights.l1 * losses.l1_mean(x, batch["image"]),
        **{f"VGG tap {i + 1}": tap(i) for i in range(len(real_taps))},
        "VGG in all": lambda x: (
            weights.perceptual * losses.perceptual(real_taps, vgg16_taps(vgg, x), weights.perceptual_taps)
        ),
    }


def shares(gradient):
    """(high-frequency share, green-magenta share) of the power of a gradient [b, h, w, 3]."""
    power = np.abs(np.fft.fft2(gradient, axes=(1, 2))) ** 2
    fy, fx = (np.abs(np.fft.fftfreq(side)) for side in gradient.shape[1:3])
    high = np.maximum(fy[:, None], fx[None]) > HIGH
    return power[:, high].sum() / power.sum(), ((gradient @ GREEN_MAGENTA) ** 2).sum() / (gradient**2).sum()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True)
    options = parser.parse_args()
    config, _ = load_description(options.workdir)
    config.mesh.fsdp = config.train.accumulate = 1
    task = SynthesisTask(config)
    vgg, experiment = task.constants(), task.experiment
    with Checkpoints(options.workdir) as checkpoints:
        step = checkpoints.latest()
        state = checkpoints.restore(step, task.abstract_state())
    batch = jax.tree.map(jnp.asarray, next(task.batches(step)))
    exemplar_taps, real_taps = photo_taps(experiment, vgg, batch)
    inputs = [batch[key] for key in ("label", "exemplar", "exemplar_label")]
    keys = example_keys(jax.random.key(config.seed), len(batch["image"]))
    fake = experiment.network.apply(
        {"params": state.generator}, *inputs, exemplar_taps, state.statistics, keys, training=True
    ).image
    print("| loss, weighted | value | gradient norm | high frequencies | green-magenta |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, term in weighted_terms(experiment, state, vgg, batch, real_taps).items():
        value, gradient = jax.value_and_grad(term)(fake)
        high, green = shares(np.asarray(gradient, np.float64))
        print(f"| {name} | {value:.3f} | {np.linalg.norm(gradient):.3f} | {high:.0%} | {green:.0%} |")


if __name__ == "__main__":
    main()
