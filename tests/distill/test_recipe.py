"""Recipes: what is published, what is refused, and changes from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dune_bench.distill.recipe import DistillRecipe, load_recipe, recipes
from dune_bench.errors import UsageError
from dune_bench.registry.cards import parse_card
from dune_bench.registry.lookup import load_registry
from tests.distill.small import content, recipe


def test_every_recipe_that_ships_loads_and_is_called_as_its_file() -> None:
    found = {name: load_recipe(name) for name in recipes()}
    assert {
        "smoke",
        "dune_mini",
        "dune_vitb14_336",
        "dune_vitb14_448",
        "dune_vits14_336",
        "dune_vits14_448",
    } <= set(found)
    encoders = load_registry().encoders
    for name, loaded in found.items():
        assert loaded.id == name
        assert name not in encoders
        text = recipes()[name].read_text("utf-8")
        assert text.startswith("# ")
        assert f"distill {name}" in text.splitlines()[0]
        for teacher in loaded.teachers:
            assert teacher.source in encoders


@pytest.mark.parametrize(
    ("name", "steps", "rate", "size"),
    [
        ("dune_vitb14_336", 125_114, 1.2e-3, 336),
        ("dune_vitb14_448", 62_558, 2e-4, 448),
        ("dune_vits14_336", 125_114, 1.2e-3, 336),
        ("dune_vits14_448", 62_558, 2e-4, 448),
    ],
)
def test_published_settings(name: str, steps: int, rate: float, size: int) -> None:
    loaded = load_recipe(name)
    engine = loaded.training.engine()
    assert (engine.steps, engine.lr) == (steps, pytest.approx(rate))
    assert engine.warmup_steps == steps // 5
    assert engine.learning_rate(0) == 0
    assert engine.learning_rate(steps // 5) == pytest.approx(rate)
    assert engine.learning_rate(steps) == pytest.approx(1e-6)
    assert (engine.betas, engine.eps, engine.weight_decay) == ((0.9, 0.99), 1e-15, 0.03)
    assert (engine.clip, engine.clip_norm, engine.dtype) == ("per_tensor", 1.0, "bfloat16")
    assert loaded.student.image_size == size
    assert (loaded.student.init is not None) == (size == 448)
    assert sum(len(g.sources) for g in loaded.data.groups.values()) == 19
    assert loaded.dropping.probability == 0.5
    assert [t.home_group for t in loaded.teachers] == ["dinov2", "mast3r", "multihmr"]


def test_preset_of_the_original_sets_what_depends_on_processes_unless_said() -> None:
    clean, original = recipe(), recipe(preset="dune-cvpr25")
    assert (clean.dropping.counts, clean.dropping.draw, clean.data.truncated) == ("batch", "image", False)
    assert (original.dropping.counts, original.dropping.draw) == ("process", "process")
    assert original.data.truncated
    said = recipe(preset="dune-cvpr25", dropping={"counts": "batch"}, data={"mix": "proportional"})
    assert (said.dropping.counts, said.dropping.draw, said.data.truncated) == ("batch", "process", False)
    assert load_recipe("dune_vitb14_336", ["preset=clean"]).dropping.counts == "batch"


def test_changes_reach_keys_lists_and_sections_that_the_file_leaves_out() -> None:
    loaded = load_recipe(
        "smoke",
        [
            "training.steps=7",
            "training.base_lr=1e-2",
            "teachers.0.name=other",
            "teachers.0.encoder=pixels",
            "weighting.kind=uncertainty",
            "evaluate={every: 5, tasks: semseg}",
            "data.groups.rooms.sources.0.split=train",
            "trackers=[tensorboard]",
        ],
        "renders",
    )
    assert loaded.training.engine().steps == 7
    assert loaded.training.base_lr == 0.01
    assert (loaded.teachers[0].name, loaded.teachers[0].source) == ("other", "pixels")
    assert loaded.weighting.kind == "uncertainty"
    assert loaded.evaluate is not None
    assert loaded.evaluate.tasks == "semseg"
    assert loaded.data.groups["rooms"].sources[0].unlabelled == "renders"
    assert loaded.trackers == ("tensorboard",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.stepz=1", r"unknown key 'training.stepz' \(did you mean steps"),
        ("student.arch.widht=3", r"unknown key 'student.arch.widht' \(did you mean width\?"),
        ("dropin.p=0", r"unknown key 'dropin' \(did you mean dropping\?"),
        ("teachers.5.name=a", "'5' is no number of this list: 0 to 2"),
        ("training.steps", "write a change of the recipe as key=value"),
        ("training.steps=[", "the value is not YAML"),
        ("id.more=1", "id is a value"),
        ("student.image_size=100", "image_size 100 is not a multiple of the patch, 14"),
        ("dropping.method=own_data", "teacher efficientnet_lite0 has no home group"),
        ("dropping.method=lowest_los", "lowest_loss"),
        ("teachers.1.name=pixels", "a teacher stands twice"),
        ("training.epochs=1", "exactly one of steps, epochs"),
        ("training.warmup=1.5", "training.warmup"),
        ("student.timm=vit_tiny_patch16_224", "exactly one of arch, timm"),
        ("data.groups.rooms.sources=[]", "data.groups.rooms.sources"),
        ("data.groups={}", "data.groups"),
        ("data.mix=only:moon", "mix: no group 'moon'"),
        ("teachers=[]", "teachers"),
        ("ema=1", "ema"),
    ],
)
def test_wrong_change_is_one_line(change: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        load_recipe("smoke", [change])
    assert "\n" not in str(refused.value)


def test_unknown_recipe_and_renders_without_rooms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no recipe 'smok' \(did you mean smoke"):
        load_recipe("smok")
    with pytest.raises(UsageError, match="no source of kind minirooms"):
        load_recipe("dune_vitb14_336", (), str(tmp_path))


def test_recipe_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content()))
    assert load_recipe(str(path)) == recipe()
    # What was trained is written as a recipe that loads again.
    path.write_text(yaml.safe_dump(recipe().model_dump(mode="json")))
    assert load_recipe(str(path)) == recipe()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 4},
        {"dropping": {"p": 0.1}},
        {"ema": 0.9},
        {"projectors": {"kind": "sp"}},
        {"loss": {"beta": 2}},
    ],
)
def test_identity_holds_what_moves_a_weight(changes: dict[str, Any]) -> None:
    assert recipe(**changes).identity() != recipe().identity()
    free = {"description": "x", "trackers": ["tensorboard"], "evaluate": {"every": 3}}
    assert recipe(**free).identity() == recipe().identity()


def test_steps_from_epochs_are_even() -> None:
    raw = content(training={"steps": None, "epochs": 3, "epoch_images": 21})
    assert parse_card(raw, DistillRecipe, "r").training.engine().steps == 8
