"""Encoders in a folder or a file: found by their place, and kept inside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dune_bench.cli.show import describe
from dune_bench.errors import UsageError
from dune_bench.registry import lookup
from dune_bench.registry.cards import EncoderCard
from dune_bench.registry.folders import CARD, card_of_folder, has_card, id_of_place
from dune_bench.registry.lookup import Registry

CONTENT: dict[str, Any] = {
    "id": "pupil",
    "kind": "timm",
    "arch": {"name": "vit_tiny_patch16_224"},
    "weights": [{"file": "encoder.safetensors", "licence": "ours"}],
}


def folder(root: Path, **changes: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / CARD).write_text(yaml.safe_dump(CONTENT | changes))
    return root


def weights(*files: str) -> list[dict[str, str]]:
    return [{"file": file, "licence": "ours"} for file in files]


def test_files_of_a_folders_card_are_looked_for_in_the_folder(tmp_path: Path) -> None:
    decoder = "heads/decoder.pth"
    place = folder(
        tmp_path / "runs" / "one", weights=weights("a.safetensors", "./b.pth"), decoders=weights(decoder)
    )
    card = Registry().encoder(str(place))
    assert card.id == "pupil"
    assert [source.file for source in card.weights] == [str(place / "a.safetensors"), str(place / "b.pth")]
    assert [source.file for source in card.decoders] == [str(place / decoder)]


def test_folder_is_found_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "runs" / "one")
    monkeypatch.chdir(tmp_path / "runs")
    for name in ("one", "./one", "one/", "../runs/one"):
        source = Registry().encoder(name).weights[0]
        assert source.file == str(tmp_path / "runs" / "one" / "encoder.safetensors")


def test_other_sources_of_a_folders_card_stay(tmp_path: Path) -> None:
    place = folder(tmp_path, weights=[{"hub": "org/name:file", "licence": "ours"}])
    assert Registry().encoder(str(place)).weights[0].hub == "org/name:file"


@pytest.mark.parametrize("file", ["../secret.pth", "/etc/passwd", "a/../../b.pth", "~/x.pth"])
def test_path_outside_of_the_folder_is_refused(tmp_path: Path, file: str) -> None:
    place = folder(tmp_path / "one", weights=weights(file))
    if file.startswith("~"):  # a name like any other, inside
        assert Registry().encoder(str(place)).weights[0].file == str(place / file)
        return
    with pytest.raises(UsageError, match=r"encoder\.yaml: file .* lies outside of the folder") as caught:
        Registry().encoder(str(place))
    assert repr(file) in str(caught.value)


def test_link_does_not_lead_outside_of_the_folder(tmp_path: Path) -> None:
    place = folder(tmp_path / "one")
    (tmp_path / "secret.safetensors").write_text("x")
    (place / "encoder.safetensors").symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(UsageError, match="lies outside of the folder"):
        Registry().encoder(str(place))


def test_folder_does_not_run_code(tmp_path: Path) -> None:
    place = folder(tmp_path, kind="file", arch={"path": str(tmp_path / "evil.py")}, weights=[])
    with pytest.raises(UsageError, match=r"encoder\.yaml: kind 'file' runs code"):
        Registry().encoder(str(place))


def test_folder_without_a_card_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no encoder\.yaml in it: is the training|no such folder"):
        Registry().encoder(str(tmp_path))
    with pytest.raises(UsageError, match=r"encoder\.yaml: cannot read the card"):
        card_of_folder(tmp_path)
    assert not has_card("x" * 5000)


def test_damaged_card_names_its_file(tmp_path: Path) -> None:
    place = folder(tmp_path, arhc={})
    with pytest.raises(UsageError, match=r"encoder\.yaml: unknown key 'arhc' \(did you mean arch"):
        Registry().encoder(str(place))


def test_folder_in_the_way_does_not_hide_a_registered_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path / "pixels", id="other")
    monkeypatch.chdir(tmp_path)
    registry = Registry()
    registry.add_encoder(EncoderCard(id="pixels", kind="pixels"), "x")
    assert registry.encoder("pixels").kind == "pixels"


@pytest.mark.parametrize("name", ["gone.pth", "runs/gone.safetensors", "gone.pt"])
def test_missing_checkpoint_says_so(name: str) -> None:
    with pytest.raises(UsageError, match=rf"checkpoint {name} does not exist"):
        Registry().encoder(name)


def test_show_knows_a_folder(tmp_path: Path) -> None:
    place = folder(tmp_path)
    found = describe(Registry(), str(place))
    assert (found["id"], found["card"]) == ("pupil", "made from the name")
    with pytest.raises(UsageError, match="unknown name"):
        describe(Registry(), str(tmp_path / "gone"))


def test_card_of_a_folder_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from dune_bench.registry.lookup import Registry; "
        f"Registry().encoder({str(folder(tmp_path))!r}); print('torch' in sys.modules)"
    )
    root = str(Path(lookup.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "False"


def test_results_are_found_by_the_place_that_was_typed(tmp_path: Path) -> None:
    names = {
        str(folder(tmp_path / "one")): "pupil",
        "runs/my student (2).pth": "my_student__2_",
        "_.safetensors": "checkpoint",
        "own/file.py": "file",
        "own/file.py:make": "file:make",
        "timm:vit_tiny": "timm:vit_tiny",
        "dune_vitb": "dune_vitb",
    }
    assert {name: id_of_place(name) for name in names} == names


def test_a_place_without_a_card_is_not_answered_with_the_list_of_cards(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no encoder\.yaml in it: is the training finished\?$"):
        Registry().encoder(str(tmp_path))
    with pytest.raises(UsageError, match=r"no such folder$"):
        Registry().encoder(str(tmp_path / "none"))
