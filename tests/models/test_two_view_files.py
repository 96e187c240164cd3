"""Released two-view files: what is read, and what is refused in one line."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.encoders.checkpoint import load_torch
from dune_bench.errors import BenchError, TaskError, UsageError
from dune_bench.models.croco import CrocoConfig, CrocoEncoder
from dune_bench.models.model_string import parse_model_string
from dune_bench.models.two_view_decoder import DecoderConfig
from dune_bench.models.two_view_files import ENCODER_NAMES, decoder_config, read_decoder
from tests.models.released_two_view import DUNE_STRING, MAST3R_STRING, listed, released


def refused(content: object, error: type[BenchError] = UsageError, **fit: int) -> str:
    with pytest.raises(error) as caught:
        read_decoder(content, "file.pth", **fit)
    message = str(caught.value)
    assert message.startswith("file.pth: ")
    assert "\n" not in message
    assert len(message) < 400
    return message


def with_string(text: str) -> dict[str, object]:
    return released("dunemast3r") | {"mast3r_model_str": text}


@pytest.mark.parametrize("kind", ["mast3r", "dunemast3r"])
def test_names_and_shapes_are_those_of_the_released_file(kind: str) -> None:
    decoder = read_decoder(released(kind), "file.pth").decoder
    prefix = "" if kind == "mast3r" else "mast3r."
    own = {
        name.removeprefix("input_") if name.startswith("input_") else prefix + name: tuple(tensor.shape)
        for name, tensor in decoder.state_dict().items()
    }
    file = listed(kind)
    assert own.items() <= file.items()
    rest = {name.removeprefix(prefix) for name in file.keys() - own.keys()}
    unread = {name for name in rest if not name.startswith(ENCODER_NAMES)}
    heads = [f"downstream_head{view}.dpt.scratch" for view in (1, 2)]
    unit = [f"conv{n}.{leaf}" for n in (1, 2) for leaf in ("weight", "bias")]
    assert unread == {
        "mask_token",
        *(f"{head}.layer{n}_rn.weight" for head in heads for n in (1, 2, 3, 4)),
        *(f"{head}.refinenet4.resConfUnit1.{leaf}" for head in heads for leaf in unit),
    }


def test_encoder_has_the_released_names_and_shapes() -> None:
    with torch.device("meta"):
        encoder = CrocoEncoder(CrocoConfig())
    own = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    assert own == {n: shape for n, shape in listed("mast3r").items() if n.startswith(ENCODER_NAMES)}


def test_both_kinds_say_what_they_were_trained_on() -> None:
    own, wrapped = (read_decoder(released(kind), "f") for kind in ("mast3r", "dunemast3r"))
    assert own.backbone is None
    assert own.decoder.config == DecoderConfig(encoder_dim=1024)
    assert wrapped.backbone == "dune_vitsmall_14_448_paper_encoder"
    assert wrapped.decoder.config == DecoderConfig(encoder_dim=384, patch=14, input_norm=True)
    assert not any(parameter.requires_grad for parameter in wrapped.decoder.parameters())
    assert not wrapped.decoder.training


def test_unused_encoder_and_backbone_of_a_wrapper_are_no_surprise() -> None:
    content: dict[str, Any] = released("dunemast3r")
    content["model"] |= {
        "dune_backbone.blocks.0.0.norm1.weight": torch.ones(384),
        "imagenet_mean": torch.ones(3),
        "mast3r.enc_blocks.0.norm1.weight": torch.ones(384),
    }
    assert read_decoder(content, "file.pth").backbone


@pytest.mark.parametrize(
    "name",
    [
        "norm.weight",
        "mast3r.dec_norm.bias",
        "mast3r.dec_blocks2.11.norm_y.weight",
        "mast3r.downstream_head2.dpt.scratch.layer_rn.0.weight",
        "mast3r.downstream_head1.head_local_features.fc2.bias",
    ],
)
def test_no_tensor_may_be_missing(name: str) -> None:
    content: dict[str, Any] = released("dunemast3r")
    del content["model"][name]
    own = "input_norm.weight" if name.startswith("norm") else name.removeprefix("mast3r.")
    assert f"missing {own}" in refused(content, TaskError)


@pytest.mark.parametrize("name", ["mast3r.dec_blocks.12.norm1.weight", "mast3r.prediction_head.weight"])
def test_no_tensor_may_be_left_over(name: str) -> None:
    content: dict[str, Any] = released("dunemast3r")
    content["model"][name] = torch.ones(768)
    assert f"unexpected {name.removeprefix('mast3r.')}" in refused(content, TaskError)


def test_string_of_another_patch_than_the_tensors_is_noticed() -> None:
    message = refused(with_string(DUNE_STRING.replace("two_confs", "patch_size=16, two_confs")), TaskError)
    assert "head_local_features.fc2.weight (4900, 4608) instead of (6400, 4608)" in message


def test_decoder_of_another_encoder_is_refused_in_one_line() -> None:
    content = released("dunemast3r")
    assert "patches of 14 px, the encoder's are of 16 px" in refused(content, patch=16)
    assert "tokens of 384 channels, the encoder gives 768" in refused(content, encoder_dim=768)
    assert read_decoder(content, "file.pth", encoder_dim=384, patch=14)


def test_confidence_of_descriptors_follows_that_of_points_unless_told_otherwise() -> None:
    own = decoder_config(MAST3R_STRING, "file.pth", input_norm=False)
    silent = MAST3R_STRING.replace(", desc_conf_mode=('exp', 0, inf)", "")
    same = decoder_config(silent, "file.pth", input_norm=False)
    assert (own.descriptor_floor, same.descriptor_floor) == (0, 1)


def test_files_of_something_else_are_told_so() -> None:
    model = released("mast3r")["model"]
    assert "no entry 'model'" in refused([1, 2])
    assert "no entry 'model'" in refused({"state_dict": model})
    assert "no configuration string" in refused({"model": model})
    assert "no configuration string" in refused({"model": model, "args": argparse.Namespace(lr=1.0)})
    dust3r = MAST3R_STRING.replace("AsymmetricMASt3R", "AsymmetricCroCo3DStereo")
    assert "'AsymmetricCroCo3DStereo'" in refused({"model": model, "args": argparse.Namespace(model=dust3r)})


def test_half_precision_file_gives_a_float32_decoder() -> None:
    content = released("dunemast3r", lambda name, shape: torch.empty(shape, device="meta").bfloat16())
    decoder = read_decoder(content, "file.pth").decoder
    assert {parameter.dtype for parameter in decoder.parameters()} == {torch.float32}


def test_string_travels_through_the_safe_loader(tmp_path: Path) -> None:
    path = tmp_path / "mast3r.pth"
    model = {"decoder_embed.weight": torch.zeros(768, 1024)}
    torch.save({"args": argparse.Namespace(model=MAST3R_STRING), "model": model, "epoch": 3}, path)
    with pytest.raises(TaskError, match=r"missing dec_blocks\.0\.attn\.proj\.bias, .+ more"):
        read_decoder(load_torch(path), str(path))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("dec_depth=12", "dec_depth=__import__('os').system('true')"), "__import__"),
        (("dec_depth=12", "dec_depth=6*2"), "6 * 2"),
        (("dec_depth=12", "dec_depth=(lambda: 12)()"), "lambda"),
        (("dec_depth=12", "dec_depth=[n for n in (12,)]"), "for n in"),
        (("dec_depth=12", "dec_depth=f'{open(1)}'"), "open(1)"),
        (("dec_depth=12", "dec_depth={'a': 12}"), "a"),
        (("dec_depth=12", "dec_depth=(n := 12)"), "n := 12"),
        (("dec_depth=12", "dec_depth=nan"), "nan"),
        (("dec_depth=12", "dec_depth=-True"), "-True"),
        (("dec_depth=12", "dec_depth=b'12'"), "12"),
        (("dec_depth=12", "**dict(dec_depth=12)"), "dict(dec_depth=12)"),
        (("dec_depth=12", "dec_depth=12, dec_depth=13"), "13"),
        (("AsymmetricMASt3R(", "AsymmetricMASt3R(print(1), "), "print(1)"),
        (("AsymmetricMASt3R(", "os.system("), "os.system"),
        (("AsymmetricMASt3R(", "("), "no call with keywords"),
        ((MAST3R_STRING, "open"), "open"),
        ((MAST3R_STRING, ""), "no call with keywords"),
        ((MAST3R_STRING, "AsymmetricMASt3R(\0)"), "no call with keywords"),
        ((MAST3R_STRING, "AsymmetricMASt3R(a=1); import os"), "no call with keywords"),
        ((MAST3R_STRING, "f(a=" + 1500 * "(" + ")"), "no call with keywords"),
        ((MAST3R_STRING, "f(a=" + 3000 * "-" + "1)"), ""),
        ((MAST3R_STRING, "f(a='" + 5000 * "x" + "')"), "5007 characters"),
    ],
)
def test_configuration_string_is_never_executed(change: tuple[str, str], named: str) -> None:
    content = released("mast3r") | {"args": argparse.Namespace(model=MAST3R_STRING.replace(*change))}
    assert named in refused(content)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("'RoPE100'", "'cosine'"), "pos_embed is 'cosine', only 'RoPE100'"),
        (("two_confs=True", "two_confs=False"), "two_confs"),
        (
            ("desc_conf_mode=('exp', 0, inf)", "desc_conf_mode=('sigmoid', 0, 1)"),
            "desc_conf_mode is ('sigmoid",
        ),
        (("'catmlp+dpt'", "'linear'"), "head_type"),
        (("pts3d+desc24", "pts3d"), "only pts3d+descN"),
        (("('exp', -inf, inf)", "('exp', 0, inf)"), "depth_mode"),
        (("two_confs=True", "two_confs=True, mlp=2"), "unknown option 'mlp'"),
        (("dec_num_heads=12", "dec_num_heads=7"), "7 heads"),
        (("dec_num_heads=12", "dec_num_heads=0"), "dec_num_heads"),
        (("dec_depth=12", "dec_depth=999999999"), "dec_depth"),
        (("dec_depth=12", "dec_depth='12'"), "dec_depth"),
        (("dec_depth=12, ", ""), "dec_depth"),
    ],
)
def test_networks_that_we_cannot_build_are_named(change: tuple[str, str], named: str) -> None:
    assert change[0] in MAST3R_STRING
    with pytest.raises(UsageError) as caught:
        decoder_config(MAST3R_STRING.replace(*change), "file.pth", input_norm=False)
    assert named in str(caught.value).replace('"', "")


@given(text=st.text(max_size=80) | st.from_regex(r"f\([a-z]=[-(\w,'.\[ ]{0,20}\)", fullmatch=True))
def test_any_text_is_a_call_or_one_line(text: str) -> None:
    answer = ""
    try:
        name, options = parse_model_string(text, "file.pth")
    except UsageError as error:
        answer = str(error)
    else:
        assert all(word.isidentifier() for word in (name, *options))
    assert "\n" not in answer


def test_literals_keep_their_values() -> None:
    text = "Net(a=-1, b=(1, -2.5, 'x'), c=-inf, d=None, e=True, f=[inf, ()], g='a(b)')"
    values = {
        "a": -1,
        "b": (1, -2.5, "x"),
        "c": -math.inf,
        "d": None,
        "e": True,
        "f": (math.inf, ()),
        "g": "a(b)",
    }
    assert parse_model_string(text, "file.pth") == ("Net", values)
