"""The TFDS builder of every dataset here: photos, or renders, with label maps.

Built datasets are ordinary TFDS datasets in the array_record format; TFDS reads them without this module
(`tfds.builder_from_directory`). Class names, palette and the origin are in `info.metadata["mscaflax"]`.
"""

import io
import os
from collections.abc import Callable, Iterator
from typing import Any

from mscaflax.data.datasets import METADATA_KEY
from mscaflax.data.inputs import Inputs
from mscaflax.data.tensorflow import import_tfds
from mscaflax.data.workers import Failure, parallel_map
from mscaflax.errors import UserError

tfds = import_tfds()

FILE_FORMAT = "array_record"


class BadFilesError(UserError):
    """Some files cannot be used; `problems` has a message for each of them."""

    def __init__(self, problems: tuple[str, ...], total: int):
        super().__init__(
            f"{len(problems)} of {total} examples cannot be used, so nothing was written: "
            "repair their files, or leave them out with --skip_bad"
        )
        self.problems = problems


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Does nothing: TFDS would ask its own bucket, and leave a temporary folder behind."""


class LabelMapBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Builds one dataset of images with label maps.

    Features: `image` (encoded JPEG or PNG, RGB), `label` (PNG, uint8 [h, w, 1] in 0..C, C = unlabelled) and
    `name`. The order of the examples is TFDS's: by a hash of the name, the same in every build.

    Attributes:
        problems: what was found wrong with the input so far, one message for each example.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Images as encoded in their files, label maps with unlabelled = C."}
    # Nothing is downloaded; TFDS's own way to find that out needs a package that it does not require.
    url_infos = None

    def __init__(
        self,
        *,
        inputs: Inputs,
        results: Callable[[str], Iterator[dict[str, Any] | Failure]] | None = None,
        skip_bad: bool = False,
        data_dir: str | os.PathLike | None = None,
        **kwargs: Any,
    ):
        """Constructs the builder; `download_and_prepare()` builds.

        Args:
            inputs: what the dataset is made from.
            results: gives the examples or failures of a split, in any order; None to make them here, one
                after the other.
            skip_bad: leave out what cannot be used, instead of raising BadFilesError at the end.
            data_dir: where TFDS keeps datasets.
            **kwargs: TFDS's own: config, version, file_format.
        """
        self.name = inputs.name
        self.problems = list(inputs.problems)
        self._inputs = inputs
        self._results = results or (lambda split: parallel_map(inputs.make, inputs.splits[split], workers=1))
        self._skip_bad = skip_bad
        self._kept: dict[str, int] = {}
        super().__init__(data_dir=data_dir, **{"file_format": FILE_FORMAT, **kwargs})

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            description=self._inputs.description,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                    "name": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict({METADATA_KEY: self._metadata()}),
        )

    def _metadata(self) -> dict[str, Any]:
        return {
            "classes": self._inputs.classes.to_json(),
            "unlabelled": self._inputs.classes.num_classes,
            "fingerprint": self._inputs.fingerprint,
            "left_out": list(self.problems),
        }

    # TFDS would print where it builds, which is the temporary folder; `prepare` tells the final one.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in self._inputs.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        self._kept[split] = 0
        for result in self._results(split):
            if isinstance(result, Failure):
                self.problems.append(str(result))
                continue
            self._kept[split] += 1
            yield (
                result["name"],
                {
                    "image": io.BytesIO(result["image"]),
                    "label": io.BytesIO(result["label"]),
                    "name": result["name"],
                },
            )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        """Builds inside the temporary folder that TFDS deletes if this raises.

        Raises:
            BadFilesError: some examples cannot be used and `skip_bad` is off; all splits have been checked.
            UserError: no example of a split can be used.
        """
        try:
            super()._download_and_prepare(dl_manager=dl_manager, download_config=download_config)
        except AssertionError:
            # TFDS gives up at a split without examples; the other splits' problems are wanted too.
            if not self.problems or all(self._kept.values()):
                raise
            for split in self._inputs.splits.keys() - self._kept.keys():
                for _ in self._generate_examples(split):
                    pass
        if self.problems and not self._skip_bad:
            raise BadFilesError(tuple(self.problems), self._inputs.num_items + len(self._inputs.problems))
        empty = [split for split, count in self._kept.items() if not count]
        if empty:
            raise UserError(f"no example of the split {empty[0]!r} can be used: {self.problems[0]}")
        self.info.metadata[METADATA_KEY] = self._metadata()
