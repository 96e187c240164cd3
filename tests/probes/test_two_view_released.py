"""A released decoder as a head: what the file says, and what is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dune_bench.data.base import Lazy
from dune_bench.errors import BenchError, TaskError, UnavailableError, UsageError
from dune_bench.models.two_view_files import read_decoder
from dune_bench.probes.base import ProbeContext, ReleasedFile
from dune_bench.probes.recon3d import Recon3dProbe
from dune_bench.probes.two_view_fit import stored_decoder
from dune_bench.registry.lookup import load_registry
from dune_bench.run.probing import make_probe
from tests.models.released_two_view import save_small, small_wrapper
from tests.probes.fake_features import FakeFeatures

DIM = 12


def features(dim: int = DIM, patch: int = 14) -> FakeFeatures:
    return FakeFeatures({"a": torch.zeros(dim, 4, 4)}, image_size=(4 * patch, 4 * patch))


def given(path: Path) -> ProbeContext:
    return ProbeContext(released=lambda: ReleasedFile(path, "abc"))


def probe() -> Recon3dProbe:
    registry = load_registry()
    found = make_probe(registry.task("recon3d/minirooms/pretrained@1"), registry)
    assert isinstance(found, Recon3dProbe)
    return found


def refused(ctx: ProbeContext, error: type[BenchError], *args: int) -> str:
    with pytest.raises(error) as caught:
        probe().fit(features(*args), Lazy([]), {}, ctx)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_head_is_the_decoder_of_the_file(tmp_path: Path) -> None:
    path = save_small(tmp_path / "d.pth", DIM)
    head = probe().fit(features(), Lazy([]), {}, given(path))
    told = {name: head.choices[name] for name in ("file", "sha256", "backbone")}
    assert told == {"file": "d.pth", "sha256": "abc", "backbone": "dune_tiny_14_encoder"}
    views = [torch.randn(1, DIM, 4, 4, generator=torch.Generator().manual_seed(i)) for i in (1, 2)]
    own = read_decoder(small_wrapper(DIM), "f").decoder
    with torch.inference_mode():
        first, second = stored_decoder(head)(*views)[1].points, own(*views)[1].points
    assert first.shape == (1, 56, 56, 3)
    assert torch.equal(first, second)


def test_only_a_protocol_without_training_reads_what_was_released() -> None:
    assert probe().reads_released
    registry = load_registry()
    for name in ("recon3d/minirooms/match-depth@1", "recon3d/minirooms/mast3r-mini@1"):
        assert not make_probe(registry.task(name), registry).reads_released


@pytest.mark.parametrize(
    ("fit", "named"),
    [
        ((DIM + 4, 14), "tokens of 12 channels, the encoder gives 16"),
        ((DIM, 16), "patches of 14 px, the encoder's are of 16 px"),
    ],
)
def test_decoder_of_another_encoder_is_no_head(tmp_path: Path, fit: tuple[int, int], named: str) -> None:
    message = refused(given(save_small(tmp_path / "d.pth", DIM)), UsageError, *fit)
    assert named in message
    assert str(tmp_path / "d.pth") in message


def _hostile(path: Path) -> None:
    content = small_wrapper(DIM)
    string = str(content["mast3r_model_str"])
    mark = path.with_name("executed")
    torch.save(content | {"mast3r_model_str": string.replace("True", f"open({str(mark)!r}, 'w')")}, path)


def _damaged(path: Path) -> None:
    path.write_bytes(save_small(path, DIM).read_bytes()[:5000])


def _executable(path: Path) -> None:
    torch.save(small_wrapper(DIM) | {"hook": Hook()}, path)


class Hook:
    """Stands for code in a file."""


@pytest.mark.parametrize(
    ("make", "error", "named"),
    [
        (_hostile, UsageError, "open("),
        (_damaged, TaskError, "truncated"),
        (_executable, TaskError, "objects other than tensors"),
    ],
)
def test_nothing_in_a_bad_file_is_executed(
    tmp_path: Path, make: Callable[[Path], None], error: type[BenchError], named: str
) -> None:
    make(tmp_path / "d.pth")
    assert named in refused(given(tmp_path / "d.pth"), error)
    assert not (tmp_path / "executed").exists()


def test_without_an_encoder_to_ask_there_is_no_head() -> None:
    assert "released with this encoder" in refused(ProbeContext(), UnavailableError)
