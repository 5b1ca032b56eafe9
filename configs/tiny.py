"""A network of toy size for tests and for trying out a change: seconds, not minutes."""

from mscaflax.configs import base


def get_config():
    config = base.get_config()
    config.data.size = 32
    config.model.num_regions = 4
    config.model.modulation = "decoupled"
    config.model.image_channels = (8, 8, 8, 8, 8)
    config.model.label_channels = (4, 4, 8, 8, 8)
    config.model.generator_channels = (8, 8, 16, 16, 16)
    config.model.hidden_channels = (8, 8, 8, 8, 8)
    config.discriminator.channels = (8, 16)
    config.discriminator.label_channels = 4
    config.train.steps = 8
    config.train.batch_size = 4
    config.train.log_every = 2
    config.train.health_every = 4
    config.train.sample_every = 8
    config.train.checkpoint_every = 4
    config.train.statistics_photos = 8
    config.segmenter.channels = (8, 8, 8, 8, 8)
    config.segmenter.steps = 8
    config.segmenter.batch_size = 4
    config.segmenter.log_every = 2
    config.segmenter.health_every = 4
    config.segmenter.sample_every = 8
    config.segmenter.checkpoint_every = 4
    config.segmenter.statistics_photos = 8
    config.segmenter.val_pairs = 4
    return config
