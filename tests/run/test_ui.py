from __future__ import annotations

import pytest

from dune_bench.run.ui import Eta, SilentUI


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_no_estimate_before_there_is_a_rate() -> None:
    clock = Clock()
    eta = Eta(clock=clock)
    assert eta.update(0, 100) is None
    clock.now = 1.0
    assert eta.update(10, 100) is None
    clock.now = 1.5
    assert eta.update(15, 100) is None


def test_estimate_is_the_work_left_over_the_rate() -> None:
    clock = Clock()
    eta = Eta(clock=clock)
    for step in range(1, 11):
        clock.now = float(step)
        left = eta.update(5 * step, 100)
    assert left == pytest.approx(10.0)
    assert eta.update(100, 100) == 0.0


def test_work_of_an_earlier_run_does_not_shorten_the_estimate() -> None:
    """A training that resumes at step 500 of 1000 has done nothing yet."""
    clock = Clock()
    eta = Eta(clock=clock)
    for step in range(1, 11):
        clock.now = float(step)
        left = eta.update(500 + step, 1000)
    assert left == pytest.approx(490.0)


def test_what_is_read_first_does_not_make_resumed_work_look_done_at_once() -> None:
    """A fit says that it reads, of 1, before it goes on at step 400 of 900."""
    clock = Clock()
    eta = Eta(clock=clock)
    eta.update(0, 1)
    for step in range(1, 11):
        clock.now = 5.0 + step
        left = eta.update(400 + step, 900)
    assert left == pytest.approx(490.0)


def test_slow_start_is_forgotten() -> None:
    clock = Clock()
    eta = Eta(window_s=10.0, clock=clock)
    clock.now = 100.0
    eta.update(1, 1000)
    for step in range(1, 31):
        clock.now = 100.0 + step
        left = eta.update(1 + 10 * step, 1000)
    assert left == pytest.approx((1000 - 301) / 10, rel=0.02)


def test_progress_that_starts_again_does_not_give_a_negative_time() -> None:
    clock = Clock()
    eta = Eta(clock=clock)
    for step, done in enumerate((10, 20, 30, 0, 5, 10), start=1):
        clock.now = float(step)
        left = eta.update(done, 40)
        assert left is None or left >= 0
    assert left == pytest.approx(6.0)


def test_stalled_phase_shows_no_shrinking_estimate() -> None:
    clock = Clock()
    eta = Eta(clock=clock)
    for step in range(1, 6):
        clock.now = float(step)
        before = eta.update(step, 10)
    clock.now = 50.0
    after = eta.update(5, 10)
    assert before is not None
    assert after is not None
    assert after > before


def test_silent_ui_takes_everything() -> None:
    ui = SilentUI()
    ui.message("a")
    ui.warning("b")
    with ui.phase("p", "images") as phase:
        phase.update(1, 2)
