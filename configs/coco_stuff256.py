"""COCO-Stuff at 256² in bfloat16, for accelerators. The sizes are our setting, not the paper's."""

from mscaflax.configs import base


def get_config():
    config = base.get_config()
    config.data.name = "coco_stuff"
    config.data.size = 256
    config.model.num_regions = 32
    config.model.modulation = "decoupled"  # cheaper than spade, and worse at 64² (docs/results.md)
    config.model.image_channels = (64, 128, 128, 128, 128)
    config.model.label_channels = (64, 64, 128, 128, 128)
    config.model.generator_channels = (64, 128, 384, 768, 1536)
    config.model.fold_columns = True  # 64 channels of two columns fill a TPU's tiles (docs/scaling.md)
    config.model.convolutions = True  # more arithmetic for less memory traffic (docs/scaling.md)
    config.model.hidden_channels = (128, 128, 256, 256, 384)
    config.model.dtype = "bfloat16"
    config.discriminator.channels = (64, 128, 256, 512)
    config.discriminator.label_channels = 64
    config.loss.l1 = 0.0
    config.optimizer.generator_rate = 1e-4
    config.optimizer.decay_from = 0.5
    config.train.steps = 200_000
    config.train.batch_size = 128
    # Options of a TPU's compiler. The first two: no copies to and from the fast memory that run beside the
    # arithmetic; fewer bytes are moved, and nobody has timed it. The others: no maps cut into strips beside
    # the batch, which moves more where examples are few, and can end the compiler. See docs/scaling.md.
    config.train.tpu_options = (
        "xla_msa_max_outstanding_prefetches=0",
        "xla_msa_max_outstanding_evictions=0",
        "xla_tpu_run_space_to_batch=false",
        "xla_tpu_run_space_to_batch_on_new_platforms=false",
    )
    config.train.log_every = 100
    config.train.health_every = 1_000
    config.train.sample_every = 2_000
    config.train.checkpoint_every = 2_000
    config.train.statistics_photos = 1024
    config.segmenter.channels = (64, 128, 128, 256, 256)
    config.segmenter.steps = 20_000
    config.segmenter.batch_size = 64
    config.segmenter.log_every = 100
    config.segmenter.health_every = 1_000
    config.segmenter.sample_every = 2_000
    config.segmenter.checkpoint_every = 2_000
    config.segmenter.statistics_photos = 1024
    config.segmenter.val_pairs = 1024
    return config
