"""Every setting with its default. Other files change what they must; so do `--config.key=value` flags.

A stored config that lacks a key gets the value of this file: a new key's default keeps what was before it.
"""

from ml_collections import ConfigDict


def get_config():
    """The default configuration: a 64² model of 3.7 M parameters that trains on two CPU cores."""
    config = ConfigDict()
    config.seed = 0

    config.data = data = ConfigDict()
    data.name = "scenes"  # name of a dataset made by `mscaflax prepare`
    data.data_dir = ""  # where it lies; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets
    data.train_split = "train"
    data.val_split = "val"
    data.size = 64  # side of the patches, a multiple of 2^(scales-1)
    data.self_share = 0.25  # share of the batch whose exemplar is the target patch itself
    data.hidden_share = 0.0  # share of the batch whose exemplar hides half of its classes (training/step.py)
    data.side_range = (0.5, 1.0)  # side of a patch, as a share of min(short side, long side / 2)
    data.both_directions = True  # each pair serves twice, either patch as the target: saves VGG passes
    data.flip = False  # mirror both patches of a pair, half of the time

    config.model = model = ConfigDict()
    model.num_regions = 16  # K
    # Channels are listed finest scale first, one number per scale.
    model.image_channels = (32, 64, 64, 64, 64)  # N_i
    model.label_channels = (16, 32, 48, 64, 64)  # M_i
    model.generator_channels = (32, 64, 128, 192, 256)
    model.hidden_channels = (32, 64, 64, 64, 64)  # hidden layer of the modulations
    model.attention_scales = (True, True, True, True, True)  # where the exemplar is aligned
    model.alignment = "msca"  # msca; baselines: gap, vae, class, dense; or module:Class
    model.masking = True  # γ; without it every region passes
    model.mask_fill = "global"  # what a masked region holds: zero, or global (the exemplar's mean)
    model.modulation = "spade"  # spade (3×3 convolutions) or decoupled (once per region: half the parameters)
    model.normalization = "instance"  # instance (over positions) or position (over channels)
    model.noise = True  # a noise map per block, with a learned strength per channel
    model.synthesis_noise = (
        1.0,
        1.0,
        1.0,
        1.0,
        1.0,
    )  # its strength outside of training; free to change later
    model.fold_columns = False  # two columns side by side in the channels at full resolution: for TPUs
    model.convolutions = False  # products of the generator's blocks as convolutions: for TPUs
    model.remat = False  # compute the blocks anew in the backward pass: less memory, more arithmetic
    model.dtype = "float32"  # compute dtype, float32 or bfloat16; parameters are float32

    config.discriminator = discriminator = ConfigDict()
    discriminator.channels = (32, 64, 128)  # hidden layers of each patch discriminator
    discriminator.label_channels = 16  # width of the label embedding beside the image
    discriminator.num_scales = 2

    config.loss = loss = ConfigDict()
    loss.adversarial = 1.0  # hinge
    loss.feature_matching = 10.0
    loss.perceptual = 10.0  # VGG-16
    loss.perceptual_taps = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # weights of its taps, relu1_2 to relu5_3
    loss.l1 = 5.0
    loss.divergence = 0.05  # Kullback-Leibler divergence of the code of `vae`

    config.optimizer = optimizer = ConfigDict()
    optimizer.kind = "adam"  # or sgd, without momentum: for comparisons down to rounding
    optimizer.generator_rate = 2e-4
    optimizer.discriminator_rate = 4e-4
    optimizer.beta1 = 0.0
    optimizer.beta2 = 0.9
    optimizer.decay_from = 1.0  # share of the steps after which both rates fall linearly to zero
    optimizer.ema_decay = 0.999  # the moving average of the generator: min(this, (1+t)/(10+t))

    config.mesh = mesh = ConfigDict()
    mesh.fsdp = 1  # devices that share parameters, moving average and optimizer state; divides their number

    config.train = train = ConfigDict()
    train.steps = 20_000
    train.batch_size = 8  # over all devices
    train.accumulate = 1  # parts of the batch, one after the other: less memory
    train.tpu_options = ()  # of the TPU's compiler, each as "name=value"; other devices have none of them
    train.log_every = 20
    train.health_every = 200  # attention health; 0: never
    train.sample_every = 500  # sample grid; 0: never
    train.checkpoint_every = 500
    train.keep_checkpoints = 2
    train.statistics_photos = 128  # patches that give the VGG taps' mean and deviation, in sixteens

    config.segmenter = segmenter = ConfigDict()  # `mscaflax segmenter`: label maps from images
    segmenter.seed = 0  # --seed; segmenters of several seeds stand side by side
    segmenter.channels = (32, 48, 64, 96, 128)  # of the decoder, finest scale first
    segmenter.side_range = (0.25, 1.0)  # as data.side_range: wide, to know a class at many scales
    segmenter.jitter = 0.2  # of contrast, saturation and colour in training; 0 for none
    segmenter.rate = 1e-3  # AdamW's, falls to zero along a cosine
    segmenter.weight_decay = 1e-4
    segmenter.steps = 500
    segmenter.batch_size = 16  # patches, over all devices; two of each photo
    segmenter.log_every = 20
    segmenter.health_every = 100  # accuracy on a few validation patches; 0: never
    segmenter.sample_every = 250  # sample grid; 0: never
    segmenter.checkpoint_every = 250
    segmenter.keep_checkpoints = 1
    segmenter.statistics_photos = 128  # as train.statistics_photos
    segmenter.val_pairs = 128  # frozen pairs of validation patches that give its scores
    return config
