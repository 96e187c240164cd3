"""The licensed files are found again, and told apart, without being copied or unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.models.body_models import load_body_model
from dune_bench.models.smplx_files import (
    FILES,
    check_smplx,
    neutral_file,
    prepare_smplx,
    stated_gender,
    verify_smplx,
)
from dune_bench.registry.paths import places_cache
from dune_bench.registry.places import record_place, recorded_place
from tests.models import synthetic_smplx


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DUNE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DUNE_BENCH_SMPLX", raising=False)


@pytest.fixture(scope="module")
def genders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three different bodies."""
    root = tmp_path_factory.mktemp("genders")
    arrays = synthetic_smplx.synthetic_arrays(np.random.default_rng(11))
    found = {}
    for i, (gender, name) in enumerate(FILES.items()):
        moved = {"v_template": arrays["v_template"] + np.float32(0.01 * i)}
        found[gender] = synthetic_smplx.write(root / name, arrays | moved)
    return found


def folder(root: Path, files: dict[str, Path]) -> Path:
    """A folder with these files under these genders' names."""
    root.mkdir()
    for gender, path in files.items():
        (root / FILES[gender]).symlink_to(path)
    return root


def test_recorded_folder_is_found_without_a_path(tmp_path: Path, genders: dict[str, Path]) -> None:
    root = folder(tmp_path / "smplx", genders)
    text = prepare_smplx(root)
    assert "neutral, male, female are there" in text
    assert "evaluation uses neutral (SMPLX_NEUTRAL.npz)" in text
    assert "not be noticed" not in text
    assert neutral_file() == root / FILES["neutral"]
    assert load_body_model("smplx").vertex_count == 10475
    # Nothing of the licensed files is copied.
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*") if file.is_file()) < 2000


def test_variable_comes_before_the_record(
    tmp_path: Path, genders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    record_place("smplx", tmp_path / "gone", {})
    with pytest.raises(UnavailableError, match=r"gone \(recorded by .* no|no body model file .*gone"):
        neutral_file()
    for value in (genders["neutral"], genders["neutral"].parent):
        monkeypatch.setenv("DUNE_BENCH_SMPLX", str(value))
        assert neutral_file() == genders["neutral"]
        assert verify_smplx(None)[0] == []
    monkeypatch.setenv("DUNE_BENCH_SMPLX", str(tmp_path / "nowhere"))
    with pytest.raises(UnavailableError, match=r"nowhere \(\$DUNE_BENCH_SMPLX\): register at https://smpl-x"):
        neutral_file()


def test_what_cannot_be_known_of_a_lone_file_is_said(tmp_path: Path, genders: dict[str, Path]) -> None:
    text = prepare_smplx(folder(tmp_path / "one", {"neutral": genders["neutral"]}))
    assert "neutral is there; male and female are not" in text
    assert "a male or female file under the neutral's name would not be noticed" in text
    text = prepare_smplx(folder(tmp_path / "two", {k: genders[k] for k in ("neutral", "male")}))
    assert "all that are there hold different bodies; a female file" in text


def test_gendered_file_under_the_neutral_name_is_refused(tmp_path: Path, genders: dict[str, Path]) -> None:
    root = folder(tmp_path / "renamed", {"neutral": genders["male"], "male": genders["male"]})
    with pytest.raises(UsageError, match=r"SMPLX_MALE\.npz holds the body of .*SMPLX_NEUTRAL\.npz"):
        prepare_smplx(root)
    assert recorded_place("smplx") is None


def test_copy_saved_in_another_precision_is_still_a_copy(tmp_path: Path, genders: dict[str, Path]) -> None:
    root = folder(tmp_path / "saved", {"neutral": genders["male"]})
    with np.load(genders["male"]) as stored:
        arrays = dict(stored)
    rounded = arrays["v_template"].astype(np.float64).round(5)
    synthetic_smplx.write(root / FILES["male"], arrays | {"v_template": rounded})
    with pytest.raises(UsageError, match="renamed copy"):
        check_smplx(root)


def test_file_that_states_its_gender_is_believed(tmp_path: Path, genders: dict[str, Path]) -> None:
    with np.load(genders["female"]) as stored:
        arrays = dict(stored)
    root = tmp_path / "stated"
    root.mkdir()
    path = synthetic_smplx.write(root / FILES["neutral"], arrays | {"gender": np.array("Female")})
    with pytest.raises(UsageError, match=r"SMPLX_NEUTRAL\.npz says that its gender is 'female'"):
        check_smplx(root)
    synthetic_smplx.write(path, arrays | {"gender": np.array(b"neutral")})
    assert "not be noticed" not in prepare_smplx(root)
    synthetic_smplx.write(path, arrays | {"gender": np.array("male", dtype=object)})
    assert stated_gender(path) is None  # pickled: never loaded


def test_changed_file_is_noticed_by_the_check(tmp_path: Path, genders: dict[str, Path]) -> None:
    root = folder(tmp_path / "smplx", {k: genders[k] for k in ("neutral", "male")})
    prepare_smplx(root)
    assert verify_smplx(None)[0] == []
    (root / FILES["male"]).unlink()
    (root / FILES["neutral"]).unlink()
    (root / FILES["neutral"]).symlink_to(genders["female"])
    problems, _ = verify_smplx(root)
    assert len(problems) == 2
    assert problems[0].startswith("SMPLX_MALE.npz of ")
    assert "SMPLX_NEUTRAL.npz is not the file that was recorded" in problems[1]


def test_pickles_are_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "SMPLX_NEUTRAL.pkl").write_bytes(b"\x80\x04}\x94.")
    with pytest.raises(UnavailableError, match="a pickle can run any code"):
        prepare_smplx(tmp_path)
    monkeypatch.setenv("DUNE_BENCH_SMPLX", str(tmp_path / "SMPLX_NEUTRAL.pkl"))
    with pytest.raises(UsageError, match="a pickle can run any code"):
        load_body_model("smplx")


def test_damaged_record_is_none_and_unwritable_cache_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_place("mine", tmp_path, {"a": "b"})
    place = recorded_place("mine")
    assert place is not None
    assert (place.root, place.sha256) == (tmp_path, {"a": "b"})
    for text in ("{", "[]", '{"root": "x"}', '{"root": "x", "sha256": 3}'):
        (places_cache() / "mine.json").write_text(text)
        assert recorded_place("mine") is None
    (tmp_path / "file").touch()
    monkeypatch.setenv("DUNE_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(TaskError, match="set DUNE_BENCH_CACHE") as caught:
        record_place("mine", tmp_path, {})
    assert "\n" not in str(caught.value)
