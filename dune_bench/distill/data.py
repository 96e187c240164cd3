"""Training data of a distillation: images of groups, augmented, with the broken ones replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dune_bench.distill.augment import Augmentation, augmented, evaluation_view, one_thread
from dune_bench.distill.batch import DistillBatch
from dune_bench.distill.broken import BrokenImage, BrokenImages, named
from dune_bench.distill.groups import DataGroup
from dune_bench.distill.sources import ImageSource
from dune_bench.engine.data import Pick, derived_seed
from dune_bench.errors import TaskError, UsageError

IN_A_ROW = 64
"""Images of a source that may be unreadable one after the other: more, and the disk is gone."""
_AUGMENTATION, _LOSS = 1, 2


def loss_seed(pick: Pick) -> int:
    """The seed of an image in the loss, as it stands in `DistillBatch.seeds`."""
    return derived_seed(pick.seed, _LOSS)


@dataclass(frozen=True)
class _Place:
    group: int
    source: ImageSource
    label: str
    index: int


class DistillData:
    """`TrainingData` of groups: images are numbered over all groups, in their order.

    size: side of the square that the student sees, pixels.  augmentation: None: the view for evaluation.
    broken: where unreadable images are listed; default: a list of this process, without a file.

    An unreadable image is replaced by the next readable one of its source, which depends on the images
    alone.  Raises UsageError if there is no image.
    """

    def __init__(
        self,
        groups: Sequence[DataGroup],
        size: int,
        augmentation: Augmentation | None,
        broken: BrokenImages | None = None,
    ) -> None:
        for group in groups:
            if not len(group):
                raise UsageError(f"the group {group.name!r} has no image")
        self.groups = tuple(groups)
        self._size, self._augmentation = size, augmentation
        self._ends = np.cumsum([len(group) for group in groups], dtype=np.int64)
        if not len(self):
            raise UsageError("there is no group of images")
        self.broken = BrokenImages(None, len(self)) if broken is None else broken

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def lengths(self) -> Mapping[str, int]:
        """Images of each group, as `mixing.pick_order` takes them."""
        return {group.name: len(group) for group in self.groups}

    def image(self, index: int) -> NDArray[np.uint8]:
        """uint8 (H, W, 3), RGB, of an image or of what replaces it.

        Raises TaskError if too many images are unreadable, or all of a source, or `IN_A_ROW` of it.
        """
        place = self._place(index)
        length = len(place.source)
        failed: list[BrokenImage] = []
        for step in range(min(length, IN_A_ROW)):
            number = (place.index + step) % length
            try:
                return place.source.read(number)
            except TaskError as error:
                name = place.source.describe(number)
                failed.append(BrokenImage(place.label, name, str(error).removeprefix(f"{name}: ")))
                self.broken.report(failed[-1])
        what = "no image of it" if len(failed) == length else f"none of {len(failed)} images in a row"
        raise TaskError(f"{place.label}: {what} can be read: {named(failed)}; is the disk there?")

    def batch(self, picks: Sequence[Pick]) -> DistillBatch:
        """Images (B, 3, size, size), their groups, and the seeds of the loss: a function of the picks.

        Raises TaskError as `image` does.
        """
        views = []
        with one_thread():
            for pick in picks:
                image = self.image(pick.index)
                if self._augmentation is None:
                    views.append(evaluation_view(image, self._size))
                else:
                    # Seeds of their own: the loss must not draw the numbers that made the crop.
                    seed = derived_seed(pick.seed, _AUGMENTATION)
                    views.append(augmented(image, self._size, self._augmentation, seed))
        return DistillBatch(
            torch.stack(views) if views else torch.zeros(0, 3, self._size, self._size),
            torch.tensor([self._place(pick.index).group for pick in picks], dtype=torch.int64),
            torch.tensor([loss_seed(pick) for pick in picks], dtype=torch.int64),
        )

    def describe(self, picks: Sequence[Pick]) -> Sequence[str]:
        """`group/source: image`, and a word if another one stood in for it."""
        unreadable = {(broken.source, broken.image) for broken in self.broken.found()}
        names = []
        for pick in picks:
            place = self._place(pick.index)
            name = place.source.describe(place.index)
            instead = " (unreadable; the next one instead)" if (place.label, name) in unreadable else ""
            names.append(f"{place.label}: {name}{instead}")
        return names

    def _place(self, index: int) -> _Place:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side="right"))
        group = self.groups[number]
        source, place = group.locate(index - (int(self._ends[number - 1]) if number else 0))
        return _Place(number, source, f"{group.name}/{source.name}", place)
