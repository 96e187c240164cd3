"""Contact sheets: every kind can be drawn, key points land on the person."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.samples import HumanSample
from tools.minirooms.contact_sheet import SHEETS, main, spaced
from tools.minirooms.pictures import portrait


@pytest.mark.parametrize("kind", sorted(SHEETS))
def test_every_sheet_can_be_drawn(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / f"{kind}.png"
    main([kind, str(out), "--count", "2"])
    with Image.open(out) as picture:
        assert f"{picture.width} x {picture.height}" in capsys.readouterr().out
        assert np.asarray(picture).std() > 10


def test_spaced_never_repeats_or_leaves_the_range() -> None:
    assert spaced(10, 4) == [0, 2, 5, 7]
    assert spaced(3, 9) == [0, 1, 2]


def test_portrait_does_not_draw_key_points_beside_their_place() -> None:
    samples = MiniRooms("minirooms@1").samples(HumanSample, "test")
    sample = next(
        s for s in (cast(HumanSample, each) for each in samples) if any(p.visible[0] for p in s.people)
    )
    person = next(p for p in sample.people if p.visible[0])
    side = 400
    plain, drawn = (np.asarray(portrait(sample, person, side, draw)).astype(int) for draw in (False, True))
    changed = np.abs(plain - drawn).sum(axis=2) > 0
    rows, columns = np.nonzero(changed)
    points = person.keypoints_2d[person.visible]
    # The square is uniformly scaled: distances between the outermost marks are those of the points.
    extent = points.max(axis=0) - points.min(axis=0)
    marks = np.array([columns.max() - columns.min(), rows.max() - rows.min()]) - 8
    scale = marks.max() / extent.max()
    np.testing.assert_allclose(marks, extent * scale, atol=3)
    assert side / 448 < scale
