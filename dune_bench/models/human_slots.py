"""People of a batch's images as a rectangle: a row per image, a slot per person."""

from __future__ import annotations

import torch
from torch import Tensor


def in_slots(people: Tensor, images: int, group: Tensor, slot: Tensor) -> tuple[Tensor, Tensor]:
    """People (P, C) as (images, most in an image, C), and bool (images, most) where somebody is.
    group, slot: as `slots_of` gives them."""
    shape = (images, int(slot.max()) + 1 if len(slot) else 0)
    queries = people.new_zeros(*shape, people.shape[-1]).index_put((group, slot), people)
    real = torch.zeros(shape, dtype=torch.bool, device=people.device).index_put(
        (group, slot), torch.ones_like(slot, dtype=torch.bool)
    )
    return queries, real


def slots_of(image: Tensor, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """People by image: the images (I,) that have any, and each person's (P,) index among them and rank
    within its image."""
    counts = torch.bincount(image, minlength=batch)
    group = ((counts > 0).cumsum(0) - 1)[image]
    order = image.argsort(stable=True)
    slot = torch.empty_like(image)
    slot[order] = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image[order]]
    return counts.nonzero()[:, 0], group, slot
