"""Teacher statistics: over processes, under autocast, with channels that do not move."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from dune_bench.distill.batch import Tokens
from dune_bench.distill.teacher_norm import Reduce, TeacherNorm, momentum_at
from dune_bench.errors import UsageError

B, N, C = 6, 5, 8
T = TypeVar("T")


def draw(*shape: int, seed: int = 0, offset: float = 3.0) -> Tensor:
    return offset + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tokens(seed: int = 0) -> Tokens:
    return Tokens(draw(B, N, C, seed=seed), draw(B, C, seed=seed + 100, offset=-1.0))


def part(whole: Tokens, rows: slice) -> Tokens:
    assert whole.cls is not None
    return Tokens(whole.patch[rows], whole.cls[rows])


class Sums:
    """`Processes.sum` for threads that stand for processes: in place, everyone waits for everyone."""

    def __init__(self, world: int) -> None:
        self._barrier = threading.Barrier(world, timeout=10)
        self._values: list[Tensor | None] = [None] * world

    def of(self, rank: int) -> Reduce:
        def add(values: Tensor) -> Tensor:
            self._values[rank] = values.clone()
            self._barrier.wait()
            total = sum((v for v in self._values if v is not None), torch.zeros_like(values))
            self._barrier.wait()
            return values.copy_(total)

        return add


def on_processes(parts: list[Tokens], work: Callable[[Tokens, Reduce], T]) -> list[T]:
    sums = Sums(len(parts))
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(lambda p: work(p[1], sums.of(p[0])), enumerate(parts)))


@pytest.mark.parametrize("cuts", [(0, 3, 6), (0, 1, 6), (0, 2, 4, 6)])
def test_parts_on_several_processes_equal_the_whole_batch(cuts: tuple[int, ...]) -> None:
    whole, alone = tokens(), TeacherNorm(C, has_cls=True)
    wanted = alone(whole, 0.3)
    parts = [part(whole, slice(a, b)) for a, b in pairwise(cuts)]

    def work(mine: Tokens, reduce: Reduce) -> tuple[Tokens, dict[str, Tensor]]:
        norm = TeacherNorm(C, has_cls=True)
        return norm(mine, 0.3, reduce), dict(norm.state_dict())

    answers = on_processes(parts, work)
    normed = [answer[0] for answer in answers]
    np.testing.assert_allclose(torch.cat([t.patch for t in normed]), wanted.patch, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        torch.cat([t.cls for t in normed if t.cls is not None]), wanted.cls, rtol=1e-6, atol=1e-6
    )
    for answer in answers:
        for name, value in alone.state_dict().items():
            np.testing.assert_allclose(answer[1][name], value, rtol=1e-6, atol=1e-6)


def test_statistics_equal_torchs_in_float64() -> None:
    seen = tokens()
    assert seen.cls is not None
    out = TeacherNorm(C, has_cls=True)(seen)
    for got, raw in ((out.cls, seen.cls), (out.patch, seen.patch)):
        rows = raw.double().reshape(-1, C)
        wanted = (rows - rows.mean(0)) / rows.std(0)
        np.testing.assert_allclose(got.reshape(-1, C), wanted, atol=1e-6)


def test_a_large_mean_does_not_eat_the_deviation() -> None:
    small = torch.randn((40, 3, C), generator=torch.Generator().manual_seed(0))
    small = (small * 64).round() / 64  # 4096 + these are exact in float32
    norm = TeacherNorm(C, has_cls=False)
    near, far = norm(Tokens(small)), norm(Tokens(small + 4096))
    np.testing.assert_allclose(far.patch, near.patch, atol=5e-4)


def test_training_uses_the_batch_and_evaluation_the_averages() -> None:
    norm = TeacherNorm(C, has_cls=True)
    norm(tokens(0), 1.0)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    trained = norm(tokens(1))
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())
    np.testing.assert_allclose(trained.patch.mean((0, 1)), 0, atol=1e-6)
    evaluated = norm.eval()(tokens(1), 0.7, pytest.fail)
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())
    mean, std = before["normalizers.patch.mean"], before["normalizers.patch.std"]
    np.testing.assert_allclose(evaluated.patch, (tokens(1).patch - mean) / std, rtol=1e-6, atol=1e-6)


def test_a_channel_that_does_not_move_is_not_blown_up() -> None:
    seen = tokens().patch
    seen[..., 2] = 5.0
    norm = TeacherNorm(C, has_cls=False)
    assert torch.equal(norm(Tokens(seen), 1.0).patch[..., 2], torch.zeros(B, N))
    moved = seen.clone()
    moved[..., 2] += 0.01
    np.testing.assert_allclose(norm.eval()(Tokens(moved)).patch[..., 2], 10.0, rtol=1e-4)


def test_bfloat16_tokens_under_autocast_are_normalised_in_float32() -> None:
    seen = Tokens(tokens().patch.bfloat16())
    norm = TeacherNorm(C, has_cls=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = norm(seen, 1.0)
    assert inside.patch.dtype == torch.float32
    assert torch.equal(inside.patch, norm(Tokens(seen.patch.float())).patch)


def test_names_of_buffers_are_those_of_released_files() -> None:
    kinds = {has_cls: list(TeacherNorm(C, has_cls).state_dict()) for has_cls in (True, False)}
    patch = ["normalizers.patch.mean", "normalizers.patch.std"]
    assert kinds == {True: ["normalizers.cls.mean", "normalizers.cls.std", *patch], False: patch}
    assert not list(TeacherNorm(C, True).parameters())


def test_a_batch_that_is_not_finite_leaves_the_averages_alone_and_shows() -> None:
    norm = TeacherNorm(C, has_cls=True)
    norm(tokens(), 1.0)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    broken = tokens(1)
    broken.patch[0, 0, 0] = torch.nan
    out = norm(broken, 0.5)
    assert out.patch[..., 0].isnan().all()
    after = norm.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if "patch" in name)
    assert not torch.equal(before["normalizers.cls.mean"], after["normalizers.cls.mean"])


def test_buffers_are_written_in_place_and_the_input_is_not() -> None:
    norm, seen = TeacherNorm(C, has_cls=False), tokens().patch
    buffer, copy = norm.normalizers["patch"].mean, seen.clone()
    norm(Tokens(seen), 1.0)
    assert norm.normalizers["patch"].mean is buffer
    assert torch.equal(seen, copy)


def test_no_graph_leads_to_the_teacher() -> None:
    seen = tokens().patch.requires_grad_()
    assert not TeacherNorm(C, has_cls=False)(Tokens(seen)).patch.requires_grad


def test_momentum_falls_from_one_to_a_thousandth() -> None:
    assert momentum_at(0.0) == 1.0
    assert momentum_at(0.5) == pytest.approx(0.5005)
    assert momentum_at(1.0) == pytest.approx(0.001)
    values = [momentum_at(i / 50) for i in range(51)]
    assert values == sorted(values, reverse=True)


def test_class_token_is_dropped_where_it_is_not_taught() -> None:
    assert TeacherNorm(C, has_cls=False)(tokens()).cls is None


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (Tokens(draw(B, N, C)), "teacher's tokens have none"),
        (Tokens(draw(B, N, C + 1), draw(B, C)), "9 channels, their statistics 8"),
        (Tokens(draw(1, N, C), draw(1, C)), "at least 2 images"),
    ],
)
def test_tokens_without_statistics_are_refused(seen: Tokens, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TeacherNorm(C, has_cls=True)(seen)


def test_one_image_on_each_of_two_processes_is_enough() -> None:
    whole = part(tokens(), slice(0, 2))
    parts = [part(whole, slice(0, 1)), part(whole, slice(1, 2))]
    answers = on_processes(parts, lambda mine, reduce: TeacherNorm(C, True)(mine, 0.5, reduce).cls)
    wanted = TeacherNorm(C, True)(whole).cls
    np.testing.assert_allclose(torch.cat(answers), wanted, atol=1e-6)
