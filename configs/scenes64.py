"""The embedded scenes at 64²: what `launch/demo` trains. Narrow at the fine scales, where the time goes."""

from mscaflax.configs import base


def get_config():
    config = base.get_config()
    config.model.image_channels = (16, 32, 48, 64, 64)
    config.model.label_channels = (16, 24, 32, 48, 64)
    config.model.generator_channels = (16, 32, 64, 128, 192)
    config.model.hidden_channels = (16, 32, 48, 64, 64)
    config.data.hidden_share = 0.5  # another scene lacks classes, a patch of the same photo hardly any
    config.loss.perceptual_taps = (0.25,) * 5  # see photos64
    config.train.batch_size = 16
    config.optimizer.generator_rate = 8e-4  # the demo has but minutes
    config.optimizer.decay_from = 0.6
    return config
