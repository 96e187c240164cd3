"""An encoder from the user's own file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dune_bench.encoders.base import Encoder
from dune_bench.errors import UsageError
from tests.encoders.loading import image, load

TEN_LINES = """
import torch
from dune_bench.encoders.base import Encoder

torch.manual_seed(0)
net = torch.nn.Conv2d(3, 7, 8, stride=8)
encoder = Encoder.from_module(net, patch_size=8)
"""


def from_file(folder: Path, text: str, attribute: str = "", name: str = "mine.py") -> Encoder:
    (folder / name).write_text(text)
    return load(f"{folder / name}{attribute and ':' + attribute}", "auto")


def test_ten_line_file_is_an_encoder(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    encoder = from_file(tmp_path, TEN_LINES)
    assert torch.equal(torch.get_rng_state(), state), "the global RNG moved"
    assert (encoder.id, encoder.weights) == ("mine", "file")
    assert encoder.encode(image())["norm"].patch.shape == (1, 7, 8, 12)
    again = from_file(tmp_path, TEN_LINES)
    assert encoder.weights_digest is not None
    assert encoder.identity() == again.identity()


def test_edited_file_does_not_meet_its_old_features(tmp_path: Path) -> None:
    before = from_file(tmp_path, TEN_LINES).weights_digest
    assert from_file(tmp_path, TEN_LINES + "\n# edited").weights_digest != before
    assert from_file(tmp_path, TEN_LINES.replace("manual_seed(0)", "manual_seed(1)")).weights_digest != before


HEAD = "import torch\nPATCH_SIZE = 8\n"
POOL = "torch.nn.functional.avg_pool2d(x, 8)"
CONV = "torch.nn.Conv2d(3, 7, 8, 8)"


@pytest.mark.parametrize(
    ("text", "attribute", "cached"),
    [
        (f"{HEAD}MEAN = STD = (0.5, 0.5, 0.5)\nencoder = {CONV}", "", True),
        (f"{HEAD}def encoder():\n    return {CONV}", "", True),
        (f"{HEAD}net = lambda x: {POOL}", "net", False),
        (f"{HEAD}FINGERPRINT = 'v1'\ndef net(x):\n    return {POOL}", "net", True),
        (f"{TEN_LINES}\ndef make():\n    return encoder", "make", True),
    ],
)
def test_every_form_of_file_works(tmp_path: Path, text: str, attribute: str, cached: bool) -> None:
    encoder = from_file(tmp_path, text, attribute)
    assert encoder.encode(image())["norm"].patch.shape[2:] == (8, 12)
    assert (encoder.weights_digest is not None) == cached


def test_own_encoder_class_keeps_its_default_view(tmp_path: Path) -> None:
    text = """
import torch
from dune_bench.encoders.base import Encoder

class Mine(Encoder):
    id, adapter, patch_size, dim, depth = "x", "mine@1", 8, 3, 1
    has_norm, default_view = False, "raw"

    def _forward(self, normalised, views):
        return dict.fromkeys(views, (torch.nn.functional.avg_pool2d(normalised, 8), None))

encoder = Mine()
"""
    encoder = from_file(tmp_path, text)
    assert (encoder.id, encoder.default_view, encoder.weights_digest) == ("mine", "raw", None)
    assert encoder.encode(image(), ["raw", "layer:1"])["raw"].patch.shape == (1, 3, 8, 12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_module", r"line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1\nencoder = = 2", "SyntaxError"),
        ("x = 1\nencoder = x.y", "line 2: AttributeError"),
        ("def encoder():\n    raise ValueError('no luck')", "line 2: ValueError: no luck"),
        ("encodr = 1", r"nothing is called 'encoder' \(did you mean encodr"),
        ("encoder = 3", "found a int, expected an Encoder"),
        ("import torch\nencoder = torch.nn.Identity()", "set PATCH_SIZE"),
    ],
)
def test_broken_file_is_one_line_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        from_file(tmp_path, text)
    assert "mine.py" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_takes_no_weights(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TEN_LINES)
    for weights in ("random", str(tmp_path / "mine.py")):
        with pytest.raises(UsageError, match="takes no weights"):
            load(str(tmp_path / "mine.py"), weights)


def test_a_file_changed_within_the_second_is_not_run_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    text = "import torch\nPATCH_SIZE = 14\nencoder = torch.nn.Conv2d(3, 4, 14, 14)\n"
    text += "torch.nn.init.constant_(encoder.weight, 1)\ntorch.nn.init.zeros_(encoder.bias)\n"
    found = []
    for value in ("1", "2"):
        path.write_text(text.replace(", 1)", f", {value})"))
        os.utime(path, (1e9, 1e9))
        module = load(str(path), weights="auto").module
        assert module is not None
        found.append(float(module.weight.detach().mean()))
    assert found == [1.0, 2.0]
