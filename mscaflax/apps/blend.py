"""Mixing exemplars: between styles, from place to place, class by class.

All mixtures are linear in the aligned features, for one target and several exemplars. Over the whole picture
the region values γ·V are mixed; from place to place, every exemplar keeps regions of its own, which each
position takes by its weight. The Synthesizer's own pictures are mixtures of one exemplar.
"""

import copy

import jax
import jax.numpy as jnp
import numpy as np

from mscaflax.apps.synthesizer import batched_valid, check_seed, to_picture
from mscaflax.errors import UserError
from mscaflax.nets.msca import Alignment

MAX_STEPS = 1000  # of a path
MAX_PATH_PIXELS = 100_000_000  # of all its pictures, which are held at once
# Of a weight, on either side of zero. Far beyond a style there is none: the network's values overflow.
MAX_WEIGHT = 10


class Blender:
    """One layout and several exemplars, aligned once, mixed as often as one likes.

    Example:
      >>> blender = Blender(synthesizer.model, layout, [one, other])
      >>> halfway = blender.mix([0.5, 0.5])
    """

    def __init__(self, model, layout, exemplars, seed=0):
        """Aligns the exemplars.

        Args:
          model: a mscaflax.training.model.Model.
          layout: a mscaflax.apps.inputs.Layout.
          exemplars: at least one mscaflax.apps.inputs.Exemplar.
          seed: of the texture noise, the same for all mixtures; 0 .. 2^32-1.

        Raises:
          UserError: no exemplar, or a seed out of range.
        """
        check_seed(seed)
        if not exemplars:
            raise UserError("there is nothing to blend: give at least one exemplar")
        self.model, self.layout, self.seed = model, layout, seed
        self._alignments = [
            model.align(layout.label[None], exemplar.image[None], exemplar.label[None], batched_valid(layout))
            for exemplar in exemplars
        ]

    def with_seed(self, seed):
        """The same layout and exemplars, aligned as they are, with the texture of another seed."""
        other = copy.copy(self)
        other.seed = seed
        return other

    @property
    def alignments(self):
        """Of each exemplar, the Alignments of all scales, as of `Model.align`."""
        return tuple(self._alignments)

    def mix(self, weights):
        """One style for the whole picture: Σ wᵢ·(γV)ᵢ.

        Args:
          weights: a number in -MAX_WEIGHT..MAX_WEIGHT for each exemplar; they need not lie in [0, 1]:
            (-0.5, 1.5) goes beyond the second exemplar. Those that sum to 1 keep what the exemplars have in
            common.

        Returns:
          uint8 [h, w, 3].

        Raises:
          UserError: as `check_weights`.
        """
        weights = np.asarray(check_weights(weights, len(self._alignments)), np.float32)
        return self._decode([_mixed(scale, weights) for scale in self._scales()])

    def path(self, steps, begin=0.0, end=1.0):
        """A strip from one style to the next, through all exemplars in their order.

        Args:
          steps: number of pictures, 2 to MAX_STEPS.
          begin, end: 0 is the first exemplar, 1 the last; below and above goes beyond them, as far as the
            weights may.

        Returns:
          uint8 [steps, h, w, 3].

        Raises:
          UserError: fewer than two exemplars or steps, more steps than `check_steps` lets through, or a place
            too far beyond.
        """
        count = len(self._alignments)
        check_steps(steps, self.layout.size)
        if count < 2 or steps < 2:
            raise UserError(f"a path needs two exemplars and two steps or more, got {count} and {steps}")
        # Beyond an end, the weight there exceeds 1 by as much as the place does.
        beyond = (MAX_WEIGHT - 1) / (count - 1)
        if not all(-beyond <= place <= 1 + beyond for place in (begin, end)):
            raise UserError(
                f"a path through {count} exemplars goes between places in {-beyond:.4g}..{1 + beyond:.4g}, "
                f"got {begin:g} and {end:g}"
            )
        return np.stack(
            [self.mix(path_weights(t * (count - 1), count)) for t in np.linspace(begin, end, steps)]
        )

    def mix_places(self, weights):
        """Another style at every place: the weights of a pixel mix what the exemplars give there.

        Args:
          weights: float [n, h, w] in -MAX_WEIGHT..MAX_WEIGHT for n exemplars and the layout's h × w; each
            pixel's sum to 1.

        Returns:
          uint8 [h, w, 3].

        Raises:
          UserError: weights of another shape, out of range, or that do not sum to 1.
        """
        weights = np.asarray(weights, np.float32)
        expected = (len(self._alignments), *self.layout.size)
        if weights.shape != expected:
            raise UserError(f"the weights are {list(weights.shape)}, they must be {list(expected)}")
        # NaN fails the first of these.
        if not (np.abs(weights) <= MAX_WEIGHT).all() or np.abs(weights.sum(axis=0) - 1).max() > 1e-3:
            raise UserError(f"the weights of each pixel must lie in -{MAX_WEIGHT}..{MAX_WEIGHT} and sum to 1")
        h, w = self.layout.label.shape
        # What lies beyond the border weighs nothing; there the nearest weights are as good as any.
        edge = [(0, 0), (0, h - weights.shape[1]), (0, w - weights.shape[2])]
        weights = np.pad(weights, edge, mode="edge")
        scales = list(self._scales())
        return self._decode(
            [_mixed_places(scale, _pooled(weights, 2**index)) for index, scale in enumerate(scales)]
        )

    def mix_classes(self, choice):
        """One exemplar for each semantic class.

        Args:
          choice: {class name: index of the exemplar}; classes that are not named take the first exemplar.

        Returns:
          uint8 [h, w, 3].

        Raises:
          UserError: an unknown class, or an exemplar that is not there.
        """
        names = self.model.classes.names
        taken = np.zeros(len(names) + 1, int)
        for name, index in choice.items():
            if name not in names:
                raise UserError(f"there is no class {name!r}; there are {', '.join(names)}")
            if not 0 <= index < len(self._alignments):
                raise UserError(f"there is no exemplar {index}: count 0..{len(self._alignments) - 1}")
            taken[names.index(name)] = index
        chosen = taken[self.layout.crop(self.layout.label)]
        return self.mix_places(np.stack([chosen == index for index in range(len(self._alignments))]))

    def _scales(self):
        """Per scale, the Alignments of all exemplars; None where the scale is off."""
        for found in zip(*self._alignments, strict=True):
            yield None if found[0] is None else found

    def _decode(self, alignments):
        # Without what decoding does not read: one program does for exemplars of every size and, where nothing
        # reads the regions, for any number of them.
        unread = ["attention", "gate", "regions"]
        if self.model.config.model.modulation != "decoupled":
            unread += ["assignment", "values"]
        used = tuple(a and a.replace(**dict.fromkeys(unread)) for a in alignments)
        image = self.model.decode(used, self.layout.label[None], self.seed, batched_valid(self.layout))
        return to_picture(image, self.layout)


def check_steps(steps, size):
    """Raises UserError where a path has too many steps, for pictures of `size` (h, w) or for any."""
    if steps > MAX_STEPS:
        raise UserError(f"a path has at most {MAX_STEPS:,} steps, got {steps:,}")
    h, w = size
    if steps * h * w > MAX_PATH_PIXELS:
        raise UserError(
            f"a path of {steps:,} pictures of {w}x{h} pixels is too large: at most {MAX_PATH_PIXELS:,} "
            "pixels in all; take fewer steps or a smaller label map"
        )


def check_weights(weights, count):
    """The weights of `count` exemplars as a tuple of floats.

    Raises:
      UserError: there are more or fewer, or one is no number in -MAX_WEIGHT..MAX_WEIGHT.
    """
    if np.shape(weights) != (count,):
        raise UserError(f"{count} exemplars need as many weights")
    # NaN is not between them.
    if not all(-MAX_WEIGHT <= weight <= MAX_WEIGHT for weight in weights):
        raise UserError(f"the weights must be numbers in -{MAX_WEIGHT}..{MAX_WEIGHT}")
    return tuple(float(weight) for weight in weights)


def path_weights(t, count):
    """Weights of `count` exemplars at the place t of a path, on which exemplar i stands at i.

    Beyond the ends the last step is continued: the weights sum to 1 everywhere.
    """
    weights = np.zeros(count, np.float32)
    first = int(np.clip(np.floor(t), 0, count - 2))
    weights[first], weights[first + 1] = first + 1 - t, t - first
    return weights


def ramp(size, vertical=False):
    """float32 [2, h, w]: from the first exemplar at the left (top) to the second at the right (bottom)."""
    h, w = size
    length = h if vertical else w
    second = (np.arange(length, dtype=np.float32) + 0.5) / length
    second = np.broadcast_to(second[:, None] if vertical else second[None], (h, w))
    return np.stack([1 - second, second])


def _pooled(weights, step):
    n, h, w = weights.shape
    return weights.reshape(n, h // step, step, w // step, step).mean(axis=(2, 4))


@jax.jit
def _weighted(arrays, weights):
    return sum(weight.astype(array.dtype) * array for weight, array in zip(weights, arrays, strict=True))


def _mixed(scale, weights):
    if scale is None:
        return None
    weights = list(jnp.asarray(weights))
    if scale[0].values is None:
        return Alignment(_weighted([a.features for a in scale], weights))
    # β is the target's alone: the same for all exemplars. The features, β·γV, are mixed as they are, not made
    # again of the mixed values: with the weight 1 for one exemplar they are its own, bit for bit.
    features = _weighted([a.features for a in scale], weights)
    values = _weighted([a.values for a in scale], weights)
    return Alignment(features, scale[0].assignment, values)


def _mixed_places(scale, weights):
    """Every exemplar's regions side by side, taken by β times the exemplar's weight at the place."""
    if scale is None:
        return None
    parts = [jnp.asarray(weight)[None, :, :, None] for weight in weights]
    features = _weighted([a.features for a in scale], parts)
    if scale[0].values is None:
        return Alignment(features)
    assignment = jnp.concatenate([a.assignment * part for a, part in zip(scale, parts, strict=True)], axis=-1)
    return Alignment(features, assignment, jnp.concatenate([a.values for a in scale], axis=1))
