"""Distillation from stored tokens: no teacher in memory, the same steps, and always the same store."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dune_bench.distill.store_writer import StoreOptions, write_store
from dune_bench.distill.train import Distilled, distill
from dune_bench.errors import TaskError, UnavailableError, UsageError
from tests.distill.small import log_of, pictures, recipe, teachers
from tests.distill.test_stored import ONE, TWO, registry

SAME_CROP = {
    "augmentation": {
        "scale": (1.0, 1.0),
        "ratio": (1.0, 1.0),
        **dict.fromkeys(("flip_p", "jitter_p", "grayscale_p", "blur_p", "solarize_p"), 0.0),
    }
}
"""Of a picture that is no square: its middle, each time."""


@pytest.fixture(autouse=True)
def no_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a teacher was loaded")

    monkeypatch.setattr("dune_bench.distill.train.load_teachers", refuse)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("pictures"))


def store(folder: Path, base: Path, changes: dict[str, Any] | None = None, **options: Any) -> Path:
    chosen = StoreOptions(**{"crops": 2, "shard_images": 5, "batch": 4, **options})
    facts: Any = {"base": base, "device": "cpu", "teachers": (ONE, TWO), "registry": registry()}
    write_store(recipe(**changes or {}), folder, chosen, **facts)
    return folder


def learn(folder: Path, base: Path, stored: Path, **changes: Any) -> Distilled:
    return distill(recipe(**changes), folder, base=base, device="cpu", stored=stored)


@pytest.mark.parametrize("images", ["remade", "stored"])
def test_student_learns_without_a_teacher(base: Path, tmp_path: Path, images: str) -> None:
    place = store(tmp_path / "store", base, images=images)
    # With the crops in the store, no picture is needed.
    here = base if images == "remade" else tmp_path / "nothing"
    done = learn(tmp_path / "run", here, place, training={"steps": 60, "base_lr": 0.3})
    for name in ("one", "two"):
        first, last = done.change(name)
        assert last < 0.9 * first, name
    assert (tmp_path / "run" / "encoder.yaml").is_file()
    assert done.checkpoint is not None


@pytest.mark.parametrize(("tokens", "error"), [("float16", 3e-4), ("int8", 3e-3)])
def test_steps_are_those_of_live_teachers(base: Path, tmp_path: Path, tokens: str, error: float) -> None:
    place = store(tmp_path / "store", base, {"data": SAME_CROP}, tokens=tokens)
    learn(tmp_path / "stored", base, place, data=SAME_CROP)
    distill(recipe(data=SAME_CROP), tmp_path / "live", base=base, device="cpu", teachers=teachers())
    stored, live = ([line["terms"] for line in log_of(tmp_path / kind)] for kind in ("stored", "live"))
    assert len(live) == 5
    for a, b in zip(stored, live, strict=True):
        assert a == pytest.approx(b, abs=error)
    assert stored != live  # the tokens were those of the store


def test_resume_is_exact_wherever_the_store_is(base: Path, tmp_path: Path) -> None:
    place = store(tmp_path / "store", base)
    learn(tmp_path / "run", base, place)
    learn(tmp_path / "again", base, place)
    shutil.rmtree(tmp_path / "again" / "step-000005")
    moved = shutil.move(place, tmp_path / "moved")
    learn(tmp_path / "again", base, Path(moved))
    assert log_of(tmp_path / "again") == log_of(tmp_path / "run")


def test_another_store_or_none_is_another_training(base: Path, tmp_path: Path) -> None:
    learn(tmp_path / "run", base, store(tmp_path / "store", base))
    other = store(tmp_path / "other", base, shard_images=4)
    with pytest.raises(UsageError, match=r"holds another training: identity\.store: ") as refused:
        learn(tmp_path / "run", base, other)
    assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match=r"holds another training: identity\.store: .* there, nothing now"):
        distill(recipe(), tmp_path / "run", base=base, device="cpu", teachers=teachers())


def test_store_that_does_not_fit_the_recipe_is_one_line(base: Path, tmp_path: Path) -> None:
    place = store(tmp_path / "store", base, images="stored")
    groups = recipe().model_dump(mode="json")["data"]["groups"]
    cases: list[tuple[str, dict[str, Any]]] = [
        ("2×2 tokens; the student has 42 px", {"student": {"image_size": 42}}),
        ("another augmentation", {"data": SAME_CROP}),
        ("holds nothing of teacher 'three'", {"teachers": [{"name": "three"}]}),
        ("has the groups a, b; the recipe: b, a", {"data": {"groups": None}}),
    ]
    for said, changes in cases:
        made = recipe(**{} if "groups" in changes.get("data", {}) else changes)
        if "groups" in changes.get("data", {}):
            turned = dict(reversed(list(groups.items())))
            made = made.model_copy(
                update={"data": made.data.model_validate({**made.data.model_dump(), "groups": turned})}
            )
        with pytest.raises(UsageError, match=said) as refused:
            distill(made, tmp_path / "run", base=base, device="cpu", stored=place)
        assert "\n" not in str(refused.value)
    with pytest.raises(UnavailableError, match="no finished store of teacher tokens"):
        learn(tmp_path / "run", base, tmp_path / "nowhere")


def test_home_of_a_teacher_is_the_recipes(base: Path, tmp_path: Path) -> None:
    place = store(tmp_path / "store", base)
    homes = [{"name": "one", "cls": True, "home": "b"}, {"name": "two", "home": "a"}]
    own = {"teachers": homes, "dropping": {"method": "own_data"}, "data": {"mix": "proportional"}}
    swapped = tuple(replace(teacher, home=home) for teacher, home in zip((ONE, TWO), "ba", strict=True))
    learn(tmp_path / "stored", base, place, **own)
    distill(recipe(**own), tmp_path / "live", base=base, device="cpu", teachers=swapped)
    stored, live = (
        [line["terms"]["share/one"] for line in log_of(tmp_path / kind)] for kind in ("stored", "live")
    )
    assert stored == pytest.approx(live)
    assert len(set(stored)) > 1  # not half and half, whoever has which home


def test_damaged_row_stops_the_training(base: Path, tmp_path: Path) -> None:
    place = store(tmp_path / "store", base, images="stored")
    path = place / "shards" / "two-000000.safetensors"
    data = bytearray(path.read_bytes())
    data[-400:] = bytes(byte ^ 1 for byte in data[-400:])
    path.write_bytes(data)
    with pytest.raises(TaskError, match=r"two-000000.safetensors: row \d+ is damaged") as stopped:
        learn(tmp_path / "run", base, place)
    assert "\n" not in str(stopped.value)
