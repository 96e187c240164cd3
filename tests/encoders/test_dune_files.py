"""Writing and reading students: DUNE's checkpoint layout, and a folder with a card."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from dune_bench.encoders.adapter import reinitialise
from dune_bench.encoders.base import Encoder
from dune_bench.encoders.dune import FILE_TEACHERS, DuneEncoder, DuneNetwork, ProjectorShape
from dune_bench.encoders.dune_files import (
    WEIGHTS,
    dune_card,
    read_student,
    released_names,
    save_checkpoint,
    save_folder,
    student_names,
    timm_card,
)
from dune_bench.encoders.load import load_encoder
from dune_bench.encoders.timm import TimmEncoder
from dune_bench.encoders.vit import VitConfig
from dune_bench.errors import ExitCode, TaskError, UnavailableError, UsageError
from dune_bench.registry.cards import EncoderCard
from dune_bench.registry.lookup import Registry
from tests.encoders.loading import image
from tests.encoders.released import listed_shapes

CONFIG = VitConfig(width=24, depth=2, heads=2, registers=4, table=4)
TEACHERS = {
    "dinov2reg_vitl14": ProjectorShape(),
    "mast3r_vitl16": ProjectorShape(blocks=2, width=20),
    "own-teacher": ProjectorShape(width=16),
}
VIEWS = ["raw", "norm", "layer:1", *(f"proj:{teacher}" for teacher in TEACHERS)]


def student(config: VitConfig = CONFIG) -> tuple[DuneNetwork, dict[str, Tensor]]:
    """A small student and its state with the teachers' statistics."""
    network = DuneNetwork(config, TEACHERS)
    reinitialise(network, seed=3)
    norms = {
        f"teacher_norms.{teacher}.normalizers.patch.{kind}": torch.full((shape.width,), 0.5)
        for teacher, shape in TEACHERS.items()
        for kind in ("mean", "std")
    }
    return network, network.state_dict() | norms


def features(encoder: Encoder, views: list[str] = VIEWS) -> list[Tensor]:
    found = encoder.encode(image(60, 80, count=2), views)
    return [t for view in views for t in (found[view].patch, found[view].cls) if t is not None]


def encoder_of(network: DuneNetwork) -> Encoder:
    return DuneEncoder("memory", network)


def load(name: Path, weights: str = "auto") -> Encoder:
    registry = Registry()
    return load_encoder(registry.encoder(str(name)), weights=weights, registry=registry)


def saved_folder(folder: Path) -> tuple[DuneNetwork, Path]:
    network, state = student()
    save_folder(folder, dune_card("mine", CONFIG, state, trained_on=["minirooms"]), state)
    return network, folder


@pytest.mark.parametrize("layout", ["folder", "torch", "safetensors"])
def test_round_trip_gives_the_same_features_to_the_bit(tmp_path: Path, layout: str) -> None:
    network, folder = saved_folder(tmp_path / "run")
    place = {"folder": folder, "safetensors": folder / WEIGHTS, "torch": tmp_path / "student.pth"}[layout]
    save_checkpoint(tmp_path / "student.pth", student()[1], CONFIG, 7, {"image_size": 56})
    loaded = load(place)
    assert set(loaded.teachers) == set(TEACHERS)
    for ours, theirs in zip(features(loaded), features(encoder_of(network)), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("size", ["small", "base"])
def test_names_and_shapes_of_an_export_are_the_released_ones(size: str) -> None:
    width, heads = {"small": (384, 6), "base": (768, 12)}[size]
    config = VitConfig(width=width, depth=12, heads=heads, registers=4, table=32)
    with torch.device("meta"):
        state = DuneNetwork(config, FILE_TEACHERS.values()).state_dict()
        for teacher in FILE_TEACHERS.values():
            kinds = ("cls", "patch") if teacher.startswith("dinov2") else ("patch",)
            state |= {
                f"teacher_norms.{teacher}.normalizers.{kind}.{value}": torch.empty(1024)
                for kind in kinds
                for value in ("mean", "std")
            }
    exported = {name: tuple(tensor.shape) for name, tensor in released_names(state).items()}
    assert exported == listed_shapes(size)
    assert student_names(released_names(state), "x").keys() == state.keys()


def test_official_layout_holds_what_the_original_program_looks_for(tmp_path: Path) -> None:
    path = tmp_path / "student.pth"
    save_checkpoint(path, student()[1], CONFIG, 1234, {"image_size": 56, "mean": (0.5, 0.5)})
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(path, weights_only=True)
    assert content.keys() == {"model", "iter", "args"}
    assert content["iter"] == 1234
    assert content["args"].image_size == 56
    assert content["args"].teachers == ["dino2reg_vitlarge_14", "mast3r_vitlarge_16", "own-teacher"]
    assert "encoder.blocks.0.1.attn.qkv.weight" in content["model"]
    assert "teacher_norms.mast3r_vitlarge_16.normalizers.patch.std" in content["model"]
    assert not any(tensor.requires_grad for tensor in content["model"].values())


def test_files_do_not_hold_the_storage_that_a_tensor_is_a_slice_of(tmp_path: Path) -> None:
    _, state = student()
    state["encoder.norm.bias"] = torch.zeros(1_000_000)[:24]
    save_checkpoint(tmp_path / "student.pth", state, CONFIG, 1, {})
    assert (tmp_path / "student.pth").stat().st_size < 1_000_000


@pytest.mark.parametrize("layout", ["folder", "torch"])
def test_student_is_read_back_whole(tmp_path: Path, layout: str) -> None:
    _, state = student()
    place = tmp_path / "student.pth"
    if layout == "folder":
        _, place = saved_folder(tmp_path / "run")
    else:
        save_checkpoint(place, state, CONFIG, 7, {"image_size": 56})
    found = read_student(place)
    assert found.config == CONFIG
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[name], tensor) for name, tensor in state.items())
    if layout == "torch":
        assert found.iteration == 7
        assert found.args["image_size"] == 56


def released_file(path: Path, config: VitConfig, **changes: Tensor) -> Path:
    """As the original program writes it: no word about the shape, everything prefixed."""
    network = DuneNetwork(config, ["multihmr_vitl14_672"])
    reinitialise(network, seed=0)
    model = {f"module.{name}": t for name, t in released_names(network.state_dict() | changes).items()}
    args = argparse.Namespace(image_size=56, enc_args={"arch": "x"}, teachers=["multihmr_vitlarge_14_672"])
    torch.save({"model": model, "optimizer": {"state": {}}, "iter": 7, "args": args}, path)
    return path


@pytest.mark.parametrize(
    "config",
    [
        VitConfig(width=128, depth=2, heads=2, registers=4, table=4),
        VitConfig(width=64, depth=1, heads=1, registers=0, table=6, patch=16, mask_token=False),
    ],
    ids=["registers", "other"],
)
def test_shape_of_a_released_file_is_that_of_its_tensors(tmp_path: Path, config: VitConfig) -> None:
    path = released_file(tmp_path / "dune.pth", config)
    card = Registry().encoder(str(path))
    assert VitConfig.model_validate(card.arch) == config
    assert card.id == "dune"
    assert card.teachers == ("multihmr_vitl14_672",)
    assert card.resolution == config.table * config.patch
    assert load(path).encode(image(), ["proj:multihmr_vitl14_672"])


def test_heads_that_nobody_states_are_not_guessed(tmp_path: Path) -> None:
    path = released_file(tmp_path / "narrow.pth", CONFIG)
    with pytest.raises(TaskError, match=r"24 channels are no multiple of 64.*give the folder"):
        Registry().encoder(str(path))


def test_projectors_of_other_kinds_are_said_to_have_no_view(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, state = student()
    state = {name: t for name, t in state.items() if not name.startswith("projectors.own-teacher.")}
    state |= {"projectors.own-teacher.fc1.weight": torch.ones(8, 24)}
    save_folder(tmp_path, dune_card("mine", CONFIG, state), state)
    with caplog.at_level(logging.WARNING):
        loaded = load(tmp_path)
    assert set(loaded.teachers) == {"dinov2reg_vitl14", "mast3r_vitl16"}
    assert "no view proj:own-teacher" in caplog.text
    assert read_student(tmp_path).state.keys() == state.keys()


def test_unknown_tensor_of_a_projector_is_not_passed_over(tmp_path: Path) -> None:
    _, state = student()
    save_folder(tmp_path, dune_card("mine", CONFIG, state), state)
    broken = released_names(state) | {"projectors.own-teacher.extra.weight": torch.ones(2)}
    del broken["projectors.mast3r_vitlarge_16.linear.weight"]
    save_file(broken, tmp_path / WEIGHTS)
    with pytest.raises(
        TaskError,
        match=r"missing projectors\.mast3r_vitl16\.linear\.weight; unexpected projectors\.own-teacher\.extra",
    ):
        load(tmp_path)


def test_card_of_a_student_says_what_it_is(tmp_path: Path) -> None:
    _, folder = saved_folder(tmp_path / "run")
    card = Registry().encoder(str(folder))
    assert (card.id, card.kind, card.resolution) == ("mine", "dune", 56)
    assert set(card.teachers) == set(TEACHERS)
    assert card.views == {
        "default": "norm",
        "recon3d": "raw",
        "reloc": "raw",
        "semseg": "proj:dinov2reg_vitl14",
    }
    assert card.trained_on == ("minirooms",)
    (source,) = card.weights
    assert source.file == str((folder / WEIGHTS).resolve())
    assert source.size == (folder / WEIGHTS).stat().st_size
    assert str(tmp_path) not in (folder / "encoder.yaml").read_text()


def test_folder_can_be_moved(tmp_path: Path) -> None:
    network, folder = saved_folder(tmp_path / "run")
    moved = folder.rename(tmp_path / "elsewhere")
    assert torch.equal(features(load(moved))[0], features(encoder_of(network))[0])


def test_random_weights_of_a_folder_are_branded(tmp_path: Path) -> None:
    _, folder = saved_folder(tmp_path / "run")
    assert load(folder, "random").weights == "random"


def test_missing_weights_file_is_exit_3(tmp_path: Path) -> None:
    _, folder = saved_folder(tmp_path / "run")
    (folder / WEIGHTS).unlink()
    with pytest.raises(UnavailableError, match=r"encoder mine are not on .*does not exist") as caught:
        load(folder)
    assert caught.value.exit_code is ExitCode.UNAVAILABLE
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_of_another_architecture_are_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"other.{suffix}"
    states: dict[str, dict[str, Any]] = {
        # DINOv2's own: positions are resampled by another rule, so it must not pass for DUNE.
        r"no 'encoder\.cls_token' in it: not a checkpoint of DUNE": {"cls_token": torch.zeros(1, 1, 64)},
        r"no usable 'encoder\.patch_embed\.proj\.weight'": {"encoder.cls_token": torch.zeros(1, 1, 64)},
        r"no usable 'encoder\.cls_token'": {"encoder.cls_token": torch.zeros(64)},
        r"position table of 10 patches is no square": {
            "encoder.cls_token": torch.zeros(1, 1, 64),
            "encoder.patch_embed.proj.weight": torch.zeros(64, 3, 14, 14),
            "encoder.pos_embed": torch.zeros(1, 11, 64),
        },
    }
    for reason, state in states.items():
        save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
        with pytest.raises(TaskError, match=reason) as caught:
            Registry().encoder(str(path))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_wrong_shape_that_a_file_states_is_refused(tmp_path: Path) -> None:
    _, state = student()
    save_checkpoint(tmp_path / "a.pth", state, CONFIG.model_copy(update={"depth": 3}), 1, {})
    with pytest.raises(TaskError, match=r"missing encoder\.blocks\.2\."):
        load(tmp_path / "a.pth")
    torch.save(
        {"model": released_names(state), "args": argparse.Namespace(dune_bench={"arch": {"wdth": 3}})},
        tmp_path / "b.pth",
    )
    with pytest.raises(UsageError, match=r"b\.pth, arch: .*unknown key 'wdth' \(did you mean width"):
        load(tmp_path / "b.pth")


class Evil:
    """Pickles as a call."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("touched"),))  # type: ignore[return-value]


def test_code_in_a_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": released_names(student()[1]), "args": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(TaskError, match="refused, it holds objects other than tensors"):
        Registry().encoder("evil.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(TaskError, match="not a readable safetensors file"):
        Registry().encoder("cut.safetensors")
    assert not (tmp_path / "touched").exists()


def test_values_that_are_not_plain_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_checkpoint(tmp_path / "x.pth", student()[1], CONFIG, 1, {"data": Path("x")})
    with pytest.raises(TaskError, match=r"'log_variances' is no tensor of a student"):
        save_checkpoint(tmp_path / "x.pth", {"log_variances": torch.ones(3)}, CONFIG, 1, {})
    assert not list(tmp_path.iterdir())


def test_file_that_cannot_be_written_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    _, state = student()
    with pytest.raises(TaskError, match=r"cannot write .*taken/student\.pth"):
        save_checkpoint(tmp_path / "taken" / "student.pth", state, CONFIG, 1, {})
    with pytest.raises(TaskError, match=r"cannot write .*taken/encoder\.safetensors"):
        save_folder(tmp_path / "taken", dune_card("mine", CONFIG, state), state)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_student_of_something_else_cannot_be_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_student(tmp_path / "gone.pth")
    for content in ({"id": "x", "kind": "pixels"}, {"id": "x", "kind": "dune"}):
        (tmp_path / "encoder.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(UsageError, match=r"encoder\.yaml: not the card of a DUNE student"):
            read_student(tmp_path)
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(TaskError, match="no tensors in it"):
        read_student(tmp_path / "tensor.pth")


def test_timm_student_gives_the_same_features_to_the_bit(tmp_path: Path) -> None:
    name = "test_vit"
    network: nn.Module = timm.create_model(name, pretrained=False)
    reinitialise(network, seed=5)
    save_folder(tmp_path, timm_card("pupil", name, resolution=160), network.state_dict())
    loaded = load(tmp_path)
    assert (loaded.id, loaded.adapter) == ("pupil", "timm@1")

    same = TimmEncoder("memory", name, timm.create_model(name, pretrained=False, dynamic_img_size=True))
    same.network.load_state_dict(network.state_dict())
    for ours, theirs in zip(features(loaded, ["norm"]), features(same, ["norm"]), strict=True):
        assert torch.equal(ours, theirs)


def test_bad_id_is_refused_before_anything_is_written() -> None:
    with pytest.raises(UsageError, match="card of 'a/b': id"):
        dune_card("a/b", CONFIG, {})
    assert isinstance(timm_card("ok", "vit_tiny_patch16_224"), EncoderCard)
