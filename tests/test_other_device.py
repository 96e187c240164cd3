"""The pretended GPU is worth nothing unless it refuses what a real one refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.other_device import CPU, GPU, OtherDevice


def test_tensors_on_two_devices_do_not_mix_unnoticed() -> None:
    with OtherDevice():
        here, there = torch.ones(3), torch.ones(3).to(GPU)
        assert (here.device, there.device) == (CPU, GPU)
        for mixed in (lambda: here + there, lambda: torch.stack([here, there]), lambda: there @ here):
            with pytest.raises(RuntimeError, match="two devices"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


def test_what_is_made_of_tensors_there_is_not_lost_track_of() -> None:
    with OtherDevice():
        there = torch.ones(3, device=GPU)
        made = [there * 2, there.new_zeros(2), there.double(), torch.zeros(2, device=there.device), there[:2]]
        made += [
            there[torch.tensor([0, 1])],
            there + torch.tensor(1.0),
            *there.unbind(),
            torch.cat([there, there]),
        ]
        assert {tensor.device for tensor in made} == {GPU}
        assert there.cpu().device == there.to("cpu").device == CPU


def test_a_module_that_stays_does_not_take_tensors_from_there() -> None:
    with OtherDevice():
        module, there = nn.Linear(3, 2), torch.ones(1, 3).to(GPU)
        with pytest.raises(RuntimeError, match="two devices"):
            module(there)
        assert module.to(GPU)(there).device == GPU
        module.zero_grad()
        assert module.weight.device == GPU
