"""The synthesis network: pyramids, alignment at every scale, and a SPADE-like generator, coarse to fine.

Scales i = 0 … L-1, finest first, have resolution h/2^i × w/2^i. Any h, w divisible by 2^(L-1) will do, and
target and exemplar may differ in size.
"""

from typing import Any

import flax
import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mscaflax.nets.alignments import AlignmentInputs, find_alignment
from mscaflax.nets.convolution import EdgeConv
from mscaflax.nets.encoders import ImageEncoder, LabelEncoder
from mscaflax.nets.folding import fold, unfold
from mscaflax.nets.layers import coverage_pyramid, position_noise, upsample, upsample_folded
from mscaflax.nets.spade import ModulatedBlock

# Rows: red, green, blue. Columns: brightness, blue against red, green against magenta, each as long as
# photos deviate along it (ImageNet's colour correlation; Olah et al., Distill 2017), scaled so that
# brightness passes as it is. Adam moves each output of the last convolution by equal steps: in red, green
# and blue, as much noise would go into the colours as into the brightness.
COLOUR_BASIS = 3.75 * np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], np.float32)

# The finest scales, whose blocks compute products as convolutions: coarser maps are small, and have so
# many channels that masks cost copies.
LARGE_SCALES = 2


@flax.struct.dataclass
class Synthesis:
    """What a forward pass gives.

    Attributes:
      image: [b, h, w, 3] float32 in [-1, 1].
      alignments: one Alignment or None per scale, finest first.
      divergence: Kullback-Leibler divergence of the alignment's code, float32 scalar; 0 for all but `vae`.
    """

    image: Any
    alignments: tuple
    divergence: Any = 0.0


class SynthesisNetwork(nn.Module):
    """Label map and exemplar → image.

    Attributes:
      num_classes: C, without the unlabelled class.
      num_regions: K.
      image_channels: N_i, finest first; its length is L (5, one per VGG tap).
      label_channels: M_i, finest first.
      generator_channels: channels that enter the block of each scale, finest first. A block hands on as many
        as the next finer one takes, before the upsampling, where that is cheap.
      hidden_channels: width of the modulations' hidden layer, finest first.
      attention_scales: which scales align the exemplar, finest first.
      alignment: see `find_alignment`.
      masking, mask_fill: see MaskedSpatialChannelAttention.
      modulation: `spade` or `decoupled`.
      normalization: `instance` or `position`.
      fold_columns: whether training computes the finest scale with folded maps (`mscaflax.nets.folding`), and
        pointwise products of the encoders as convolutions: less memory traffic on a TPU, the same function
        but for rounding.
      convolutions: whether training computes the products of the LARGE_SCALES' blocks as convolutions
        (`mscaflax.nets.per_image`): less memory traffic on a TPU, the same function but for rounding, and
        arithmetic that grows with the square of a device's batch.
      remat: whether the blocks of the generator are computed anew in the backward pass, not remembered.
      noise: whether each block receives a noise map.
      synthesis_noise: strength of each scale's noise maps outside of training, finest first, beside theirs in
        training.
      dtype: compute dtype; parameters are float32.
    """

    num_classes: int
    num_regions: int
    image_channels: tuple[int, ...]
    label_channels: tuple[int, ...]
    generator_channels: tuple[int, ...]
    hidden_channels: tuple[int, ...]
    attention_scales: tuple[bool, ...]
    alignment: str = "msca"
    masking: bool = True
    mask_fill: str = "global"
    modulation: str = "decoupled"
    normalization: str = "instance"
    noise: bool = True
    synthesis_noise: tuple[float, ...] = (1.0,) * 5
    fold_columns: bool = False
    convolutions: bool = False
    remat: bool = False
    dtype: Any = jnp.float32

    @property
    def num_scales(self):
        """L."""
        return len(self.generator_channels)

    @property
    def size_multiple(self):
        """Heights and widths must be multiples of this."""
        return 2 ** (self.num_scales - 1)

    def setup(self):
        self.label_encoder = LabelEncoder(self.num_classes, self.label_channels, self.dtype)
        self.image_encoder = ImageEncoder(self.image_channels, self.dtype)
        self.aligner = find_alignment(self.alignment)(
            self.num_classes,
            self.num_regions,
            self.image_channels,
            self.label_channels,
            self.attention_scales,
            self.masking,
            self.mask_fill,
            self.dtype,
        )
        self.start = EdgeConv(self.generator_channels[-1], dtype=self.dtype)
        # `folded` and `convolutions`, the arguments of these numbers, are no arrays.
        block = nn.remat(ModulatedBlock, static_argnums=(6, 7)) if self.remat else ModulatedBlock
        self.blocks = [
            block(channels, hidden, self.modulation, self.normalization, self.dtype)
            for channels, hidden in zip(
                (self.generator_channels[0], *self.generator_channels[:-1]), self.hidden_channels, strict=True
            )
        ]
        # A small first image: where tanh saturates, no gradient returns.
        init = nn.initializers.variance_scaling(0.05, "fan_in", "truncated_normal")
        self.to_rgb = EdgeConv(3, kernel_init=init, dtype=self.dtype)

    def label_pyramid(self, label, valid=None, folded=False):
        """label [b, h, w] int in 0..C, `valid` None or [b, h, w] bool → L label feature maps."""
        present = [c if c is None else (c > 0) for c in coverage_pyramid(valid, self.num_scales)]
        return self.label_encoder(label, present, folded)

    def align(
        self,
        target_labels,
        exemplar,
        exemplar_labels,
        taps,
        statistics,
        label,
        exemplar_label,
        valid=None,
        keys=None,
        visible=None,
        itself=None,
        folded=False,
    ):
        """Aligns the exemplar with the target at every scale.

        Args:
          target_labels: label_pyramid of the target's map.
          exemplar: [b, h, w, 3] float in [-1, 1].
          exemplar_labels: label_pyramid of the exemplar's map.
          taps: the five VGG taps of the exemplar.
          statistics: TapStatistics.
          label, exemplar_label: the label maps themselves.
          valid: None or [b, h, w] bool, False where the target's map is padding.
          keys: [b] random keys, or None, with which nothing is drawn.
          visible: None or [b, h', w'] bool, False where the exemplar may not be used.
          itself: see __call__.
          folded: whether the finest map of each pyramid is folded, and so is the finest Alignment.

        Returns:
          (a tuple of one Alignment, or None, where the scale is off, per scale; the divergence of the code).
        """
        images = self.image_encoder(exemplar, taps, statistics, folded)
        if folded:
            images, exemplar_labels, target_labels = (
                (unfold(pyramid[0]), *pyramid[1:]) for pyramid in (images, exemplar_labels, target_labels)
            )
        inputs = AlignmentInputs(
            images,
            exemplar_labels,
            target_labels,
            exemplar_label,
            label,
            coverage=coverage_pyramid(valid, self.num_scales),
            visible=coverage_pyramid(visible, self.num_scales),
            keys=keys,
            itself=itself,
        )
        alignments, divergence = self.aligner(inputs if self.aligner.takes_photos else inputs.per_target())
        if folded and alignments[0] is not None:
            finest, assignment = alignments[0], alignments[0].assignment
            if assignment is not None:
                # In the compute dtype, which is what the modulations take: the copy is half as large.
                assignment = fold(assignment.astype(self.dtype))
            finest = finest.replace(features=fold(finest.features), assignment=assignment)
            alignments = (finest, *alignments[1:])
        return alignments, divergence

    def decode(self, alignments, target_labels, noise_keys=None, valid=None, training=False, folded=False):
        """Synthesizes from aligned features: the image [b, h, w, 3] float32 in [-1, 1].

        `noise_keys` [b] random keys; None leaves the noise out. `training` as of __call__, `folded` of align.
        """
        present = [c if c is None else (c > 0) for c in coverage_pyramid(valid, self.num_scales)]
        coarsest = self.num_scales - 1
        inputs = [target_labels[coarsest]]
        if alignments[coarsest] is not None:
            inputs.insert(0, alignments[coarsest].features)
        x = self.start(*inputs, valid=present[coarsest])
        sizes = [features.shape[1:3] for features in target_labels]
        if folded:
            sizes[0] = (sizes[0][0], 2 * sizes[0][1])
        noise = self._noise(noise_keys, x.shape[0], sizes, training)
        for scale in reversed(range(self.num_scales)):
            here = folded and scale == 0
            if scale < coarsest:
                x = upsample_folded(x) if here else upsample(x, present[scale + 1])
            x = self.blocks[scale](
                x,
                alignments[scale],
                target_labels[scale],
                noise[scale],
                present[scale],
                here,
                training and self.convolutions and scale < LARGE_SCALES,
            )
        inputs = [nn.leaky_relu(x, 0.2)]
        if alignments[0] is not None:
            # The exemplar's colours lie in the aligned features: a short way to the image, learned at once.
            inputs.append(alignments[0].features)
        x = self.to_rgb(*inputs, valid=present[0], folded=folded)
        if folded:
            x = unfold(x)
        return jnp.tanh(jnp.einsum("bhwi,ci->bhwc", x.astype(jnp.float32), COLOUR_BASIS))

    def _noise(self, keys, batch, sizes, training):
        """Two noise maps per scale [b, h, w, 2]; Nones where noise is off, zeros without keys."""
        if not self.noise:
            return (None,) * len(sizes)
        if keys is None:
            return tuple(jnp.zeros((batch, *size, 2), self.dtype) for size in sizes)
        maps = position_noise(keys, sizes)
        if training:
            return maps
        return tuple(x * strength for x, strength in zip(maps, self.synthesis_noise, strict=True))

    def __call__(
        self,
        label,
        exemplar,
        exemplar_label,
        taps,
        statistics,
        noise_keys=None,
        valid=None,
        training=False,
        visible=None,
        itself=None,
    ):
        """One forward pass.

        Args:
          label: [b, h, w] int in 0..C, the target's layout.
          exemplar: [b, h', w', 3] float in [-1, 1].
          exemplar_label: [b, h', w'] int in 0..C.
          taps: the five VGG taps of the exemplar (mscaflax.nets.vgg); the first one folded, where the network
            folds and `training` is True.
          statistics: TapStatistics.
          noise_keys: [b] typed random keys, or None for no noise.
          valid: None or [b, h, w] bool, False where the target's map is padding.
          training: whether `vae` draws its code by the noise keys, or takes its mean; and whether the noise
            maps have their full strength, or that of `synthesis_noise`.
          visible: None or [b, h', w'] bool, False where the exemplar may not be used.
          itself: None, or [b] bool: `exemplar`, `exemplar_label`, `taps` and `visible` are of the targets'
            own photos, and pairs stand side by side. Target i's exemplar is the other photo of its pair, or,
            where True, its own. What both photos need is then computed once.

        Returns:
          A Synthesis.
        """
        folded = training and self.fold_columns
        target_labels = self.label_pyramid(label, valid, folded)
        alignments, divergence = self.align(
            target_labels,
            exemplar,
            target_labels if itself is not None else self.label_pyramid(exemplar_label, folded=folded),
            taps,
            statistics,
            label,
            exemplar_label,
            valid,
            noise_keys if training else None,
            visible,
            itself,
            folded,
        )
        image = self.decode(alignments, target_labels, noise_keys, valid, training, folded)
        return Synthesis(image, alignments, divergence)

    def align_exemplar(self, label, exemplar, exemplar_label, taps, statistics, valid=None):
        """The first half of a forward pass: its Alignments. Arguments as __call__'s."""
        pyramids = self.label_pyramid(label, valid), self.label_pyramid(exemplar_label)
        alignments, _ = self.align(
            pyramids[0], exemplar, pyramids[1], taps, statistics, label, exemplar_label, valid
        )
        return alignments

    def decode_layout(self, alignments, label, noise_keys=None, valid=None):
        """The second half: the image [b, h, w, 3] from Alignments and the target's label map [b, h, w]."""
        return self.decode(alignments, self.label_pyramid(label, valid), noise_keys, valid)
