"""Teacher norm, losses and dropping against what the original program answered, four steps and eval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dune_bench.distill.batch import Tokens
from dune_bench.distill.dropping import coefficients, image_uniforms, shares, total_and_count
from dune_bench.distill.losses import LossWeights, image_losses
from dune_bench.distill.teacher_norm import TeacherNorm

GOLDEN = Path(__file__).parents[1] / "golden" / "dune_loss.npz"
HOMES = {
    "dino2reg_vitlarge_14": "dinov2",
    "mast3r_vitlarge_16": "mast3r",
    "multihmr_vitlarge_14_672": "multihmr",
}
GROUPS = ("dinov2", "mast3r", "multihmr")
GROUP_OF_DATASET = {"in19k": 0, "gldv2": 0, "Niantic": 1, "Habitat512": 1, "bedlam": 2, "agora": 2}
STEPS = range(4)
METHODS = ("none:0", "own_data:0", "own+generic_data:0", "lowest_loss:0.0", "lowest_loss:1.0")

Golden = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="module")
def golden() -> Golden:
    with np.load(GOLDEN) as file:
        return {name: file[name] for name in file.files}


def tokens(golden: Golden, step: int, teacher: str, which: str) -> Tokens:
    cls = golden.get(f"{step}/{teacher}/cls/{which}")
    patch = torch.from_numpy(golden[f"{step}/{teacher}/patch/{which}"])
    return Tokens(patch, None if cls is None else torch.from_numpy(cls))


def norms(golden: Golden) -> dict[str, TeacherNorm]:
    return {t: TeacherNorm(16, tokens(golden, 0, t, "teacher").cls is not None).train() for t in HOMES}


def losses_of(golden: Golden, step: int) -> dict[str, Tensor]:
    """From raw tokens, not from the stored normalised ones."""
    return {
        teacher: image_losses(
            tokens(golden, step, teacher, "student"),
            norm(tokens(golden, step, teacher, "teacher")),
            LossWeights(),
        )
        for teacher, norm in norms(golden).items()
    }


def close(ours: Tensor, theirs: NDArray[Any]) -> None:
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6, atol=1e-6)


def test_teacher_norm_and_its_averages_over_four_steps_then_eval(golden: Golden) -> None:
    for teacher, norm in norms(golden).items():
        kinds = ("cls", "patch") if tokens(golden, 0, teacher, "teacher").cls is not None else ("patch",)
        for step in STEPS:
            normed = norm(tokens(golden, step, teacher, "teacher"), float(golden[f"{step}/momentum"]))
            buffers = dict(norm.named_buffers())
            for kind in kinds:
                close(getattr(normed, kind), golden[f"{step}/{teacher}/{kind}/normed"])
                close(buffers[f"normalizers.{kind}.mean"], golden[f"{step}/{teacher}/{kind}/ema_mean"])
                close(buffers[f"normalizers.{kind}.std"], golden[f"{step}/{teacher}/{kind}/ema_std"])
        seen = torch.from_numpy(golden[f"eval/{teacher}/in"])
        out = norm.eval()(Tokens(seen, seen[:, 0]))
        close(out.patch, golden[f"eval/{teacher}/out"])


@pytest.mark.parametrize("step", STEPS)
def test_losses_per_image(golden: Golden, step: int) -> None:
    for teacher, loss in losses_of(golden, step).items():
        close(loss, golden[f"{step}/{teacher}/loss_per_image"])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("method", METHODS)
def test_coefficients_and_total(golden: Golden, step: int, method: str) -> None:
    losses = losses_of(golden, step)
    name, p = method.split(":")
    groups = torch.tensor([GROUP_OF_DATASET[str(d)] for d in golden["dataset_of_image"]])
    kept = coefficients(losses, HOMES, GROUPS, groups, name, float(p), image_uniforms(groups, 3))
    total, count = total_and_count(losses, kept)
    close(total / count, golden[f"{step}/{method}/total"])
    for teacher, share in shares(kept).items():
        close(share, golden[f"{step}/{method}/{teacher}/coeff"])
