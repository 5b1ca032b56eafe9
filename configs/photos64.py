"""Photos with label maps at 64²: name the dataset by --config.data.name=NAME."""

from mscaflax.configs import base


def get_config():
    config = base.get_config()
    config.data.name = "facade"
    config.data.flip = True  # a few hundred photos are seen many times
    # At 64² relu5_3 has 4×4 positions. With the usual weight of 1 its gradient drowns all others and draws
    # specks and a weave (docs/results.md, "What led here").
    config.loss.perceptual_taps = (0.25, 0.25, 0.25, 0.25, 0.25)
    # The network needs noise at every scale to learn textures, but draws that of the finest one as cloth.
    config.model.synthesis_noise = (0.0, 1.0, 1.0, 1.0, 1.0)
    config.discriminator.channels = (64, 128, 256)
    # Beside the gradient that comes through VGG, that of a smaller weight hardly counts.
    config.loss.l1 = 25.0
    # Rates are compared in docs/results.md, "What led here".
    config.optimizer.generator_rate = 6e-4
    config.optimizer.decay_from = 0.5
    config.train.steps = 4_250  # a good 90 minutes on two cores (docs/results.md)
    return config
