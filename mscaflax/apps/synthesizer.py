"""From files or arrays to a picture: any label map, any photo, any size."""

import functools
import logging
import operator

import numpy as np

from mscaflax.apps.inputs import check_photo, read_exemplar, read_layout, segment_photo
from mscaflax.apps.pretrained import DEFAULT, pretrained_folder
from mscaflax.data.pixels import to_uint8
from mscaflax.errors import UserError

_LOG = logging.getLogger("mscaflax.synthesizer")


class Synthesizer:
    """Makes pictures with a trained model.

    Example:
      >>> synthesizer = Synthesizer.pretrained()
      >>> picture = synthesizer("layout.png", "photo.jpg", "photo_labels.png")
      >>> Image.fromarray(picture).save("picture.png")
    """

    def __init__(self, model, workdir=None):
        """`model`: a mscaflax.training.model.Model; `workdir`: whence it came, which may hold a segmenter."""
        self.model, self.workdir = model, workdir
        self._told_of_guesses = False

    @classmethod
    def from_workdir(cls, workdir=None, step=None):
        """Loads what `mscaflax train` left in `workdir`, at a step (None: the last).

        A `workdir` of None is the model that ships with the package.

        Raises:
          UserError: there is no model, or none of this step.
        """
        from mscaflax.training.model import load_model

        workdir = pretrained_folder() if workdir is None else workdir
        return cls(load_model(workdir, step), workdir)

    @classmethod
    def pretrained(cls, name=DEFAULT):
        """Loads a model that ships with the package.

        Raises:
          UserError: none of this name does.
        """
        return cls.from_workdir(pretrained_folder(name))

    @functools.cached_property
    def segmenter(self):
        """The Segmenter beside the model, which guesses label maps of photos that have none.

        Raises:
          UserError: there is none; the message names the command that makes it.
        """
        from mscaflax.training.segmenter import load_segmenter

        if self.workdir is None:
            raise UserError(
                "this model came from no workdir, so it has no segmenter to guess label maps with"
            )
        segmenter = load_segmenter(self.workdir, vgg=self.model.vgg)
        if segmenter.classes.names != self.classes.names:
            raise UserError(
                f"the segmenter in {self.workdir} knows other classes than the model: train it again"
            )
        return segmenter

    def segment(self, photo):
        """Guesses a photo's label map.

        Args:
          photo: path, or uint8 [h, w, 3] RGB.

        Returns:
          int32 [h, w] in 0..C-1, at the photo's size; found at the scale of the training patches.

        Raises:
          UserError: a file that cannot be read, or no segmenter beside the model.
        """
        return segment_photo(self.model, self.segmenter, check_photo(photo))

    def tell_of_guesses(self, tell=_LOG.warning):
        """Tells in a line, the first time that it is called, that label maps are guessed, and how well.

        Args:
          tell: what takes the line, a str.

        Raises:
          UserError: no segmenter beside the model.
        """
        scores = self.segmenter.scores or {}
        if self._told_of_guesses:
            return
        self._told_of_guesses = True
        known = "mean_iou" in scores
        quality = f": on validation patches, its mean IoU is {scores['mean_iou']:.2f}" if known else ""
        tell(f"the segmenter guesses the label map of photos that come without{quality}")

    def read_exemplar(self, photo, label=None):
        """A mscaflax.apps.inputs.Exemplar; without a label map the segmenter guesses it.

        Raises:
          UserError: as a call.
        """
        return read_exemplar(self.model, photo, label, self.segmenter if label is None else None)

    @property
    def classes(self):
        """The ClassTable whose ids and colours label maps are written in."""
        return self.model.classes

    def __call__(self, label, exemplar, exemplar_label=None, *, seed=0):
        """Synthesizes a picture with the layout of `label` in the style of `exemplar`.

        The exemplar is resized to the scale of the training patches, with legal sides (multiples of
        `network.size_multiple`). The label map keeps its size: it is padded to a
        legal one, the padding weighs nothing, and the output is cropped.

        Args:
          label: path of a label map (8-bit ids or the palette's colours), or int [h, w] in 0..C,
            C = unlabelled.
          exemplar: path of a photo, or uint8 [h', w', 3] RGB.
          exemplar_label: its label map, as `label`, of its size h' × w'; None for the segmenter's guess, of
            which the first is logged.
          seed: of the texture noise, 0 .. 2^32-1; the same call gives the same picture.

        Returns:
          uint8 [h, w, 3] RGB.

        Raises:
          UserError: a file that cannot be read, a label outside the classes, sizes that do not fit, no label
            map and no segmenter, a model that has diverged.
        """
        # The programs of all mixtures: another one rounds otherwise, and a rounding can flip an 8-bit level.
        return self.blender(label, [(exemplar, exemplar_label)], seed).mix([1])

    def explain(self, label, exemplar, exemplar_label=None, *, scale=None, seed=0):
        """The attention behind the picture that a call with the same arguments gives.

        Args:
          label, exemplar, exemplar_label, seed: as of a call.
          scale: 0, the finest, to L-1; None for one whose regions are things.

        Returns:
          A mscaflax.apps.explain.Explanation; its `draw()` is a picture, its `picture` that of the call, bit
          for bit.

        Raises:
          UserError: as a call; or the model has no such attention.
        """
        from mscaflax.apps.explain import explain

        check_seed(seed)
        layout = read_layout(self.model, label)
        return explain(self.model, layout, self._read_exemplar(exemplar, exemplar_label), scale, seed)

    def blender(self, label, exemplars, seed=0):
        """One layout and several exemplars, to be mixed as often as one likes.

        Args:
          label: path of a label map, or int [h, w], as of a call.
          exemplars: at least one; each a photo, as of a call, or a tuple (photo, label map). Without a label
            map the segmenter guesses it, and the first guess is logged.
          seed: of the texture noise, the same for all mixtures; 0 .. 2^32-1.

        Returns:
          A mscaflax.apps.blend.Blender: `mix`, `path`, `mix_places` and `mix_classes` give pictures of uint8
          [h, w, 3]. With all the weight on one exemplar, `mix` gives the picture of a call.

        Raises:
          UserError: as a call; or no exemplar, or one that is a tuple of another length.
        """
        from mscaflax.apps.blend import Blender

        check_seed(seed)
        layout = read_layout(self.model, label)
        pairs = [given if isinstance(given, tuple) else (given, None) for given in exemplars]
        if not all(len(pair) == 2 for pair in pairs):
            raise UserError("an exemplar is a photo, or a tuple (photo, label map)")
        return Blender(self.model, layout, [self._read_exemplar(*pair) for pair in pairs], seed)

    def _read_exemplar(self, photo, label):
        """As `read_exemplar`, but a guess is told of."""
        exemplar = self.read_exemplar(photo, label)
        if exemplar.guessed:
            self.tell_of_guesses()
        return exemplar

    def extrapolate(self, photo, photo_label, layout, *, at=None, seed=0):
        """Continues a photo beyond its border, see mscaflax.apps.compose.

        Args:
          photo: path of a photo, or uint8 [h, w, 3] RGB.
          photo_label: its label map: path (8-bit ids or the palette's colours), or int [h, w] in 0..C, C =
            unlabelled; None for the segmenter's guess, of which the first is logged.
          layout: the whole picture's label map, path or int [H, W] in 0..C. Where the photo lies, the photo's
            own counts.
          at: (top, left), the photo's upper left corner in it; None where its label map fits it best. It must
            be given where that map is guessed.
          seed: of the texture noise, 0 .. 2^32-1; the same call gives the same picture.

        Returns:
          uint8 [H, W, 3] RGB. The pixels of the photo are the photo's, bit for bit.

        Raises:
          UserError: a file that cannot be read, a label outside the classes, sizes that differ, a photo that
            does not lie in the layout or whose place is not found, no label map and no place or no segmenter,
            a seed out of range, a model that has diverged.
        """
        from mscaflax.apps.compose import extrapolate

        if photo_label is None:
            if at is None:
                raise UserError(
                    "without its label map, the photo's place in the layout cannot be found: "
                    "say where it lies, by `at` or --at=TOP,LEFT"
                )
            photo = check_photo(photo, "the photo")
            photo_label = self.segment(photo)
            self.tell_of_guesses()
        return extrapolate(self.model, photo, photo_label, layout, at, seed)

    def edit(self, photo, photo_label, edited, *, margin=None, seed=0):
        """Paints anew what an edited label map changes of a photo, see mscaflax.apps.compose.

        Args:
          photo: path of a photo, or uint8 [h, w, 3] RGB.
          photo_label: its label map: path (8-bit ids or the palette's colours), or int [h, w] in 0..C, C =
            unlabelled. There is no guess: whatever is wrong in it would pass for edited.
          edited: the label map that is wanted, as `photo_label`.
          margin: how many pixels around each changed one are painted anew too, 0 or more; None for two at the
            scale of the training, at least one.
          seed: of the texture noise, 0 .. 2^32-1; the same call gives the same picture.

        Returns:
          uint8 [h, w, 3] RGB. All pixels beyond the margin are the photo's, bit for bit; where nothing is
          changed, all are.

        Raises:
          UserError: no label map, a file that cannot be read, a label outside the classes, sizes that differ,
            a negative margin, a seed out of range, a model that has diverged.
        """
        from mscaflax.apps.compose import edit

        return edit(self.model, photo, photo_label, edited, margin, seed)


def check_seed(seed):
    """Raises UserError unless `seed` is a whole number in 0 .. 2^32-1."""
    try:
        operator.index(seed)
    except TypeError:
        raise UserError(f"the seed must be a whole number in 0..{2**32 - 1}, got {seed!r}") from None
    if not 0 <= seed < 2**32:
        raise UserError(f"the seed {seed} is outside 0..{2**32 - 1}")


def batched_valid(layout):
    """A Layout's `valid` as a batch of one; None where nothing is padded."""
    return None if layout.valid is None else layout.valid[None]


def to_picture(image, layout):
    """What the network gave for a Layout, float [1, h', w', 3] in [-1, 1], as uint8 [h, w, 3].

    Raises:
      UserError: it holds values that are not finite.
    """
    if not np.isfinite(image).all():
        raise UserError(
            "the output holds values that are not finite: the training of this model has diverged"
        )
    return to_uint8(layout.crop(image[0]))
