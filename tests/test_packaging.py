"""Cards and data are found in a wheel, an editable install and a bare checkout; nothing else is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import dune_bench
from dune_bench.doctor import EXTRAS, REQUIRED

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

BUILD = """
import sys
from hatchling.builders.wheel import WheelBuilder
print(next(WheelBuilder(sys.argv[1]).build(directory=sys.argv[2], versions=[sys.argv[3]])))
"""
LOOK = """
import json, dune_bench
from dune_bench.registry.lookup import cards_root, load_registry
registry = load_registry()
print(json.dumps([str(cards_root()), dune_bench.__file__, sorted(registry.encoders), sorted(registry.tasks)]))
"""


def build(folder: Path, version: str) -> Path:
    """The wheel of this checkout (`standard` or `editable`), unpacked as pip would."""
    command = [sys.executable, "-c", BUILD, str(ROOT), str(folder), version]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    target = folder / "site"
    with zipfile.ZipFile(done.stdout.strip().splitlines()[-1]) as wheel:
        wheel.extractall(target)
    return target


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"), "standard")


def look(cwd: Path, site: Path | None) -> tuple[Path, Path, list[str], list[str]]:
    """What a fresh interpreter in `cwd` finds.  site: a folder of installed packages, `.pth` files
    and all."""
    import json

    before = f"import site; site.addsitedir({str(site)!r})\n" if site else ""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", before + LOOK]
    if site:
        # Ahead of an installed dune-bench, so that it is this one that is looked at.
        environment["PYTHONPATH"] = str(site)
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    cards, package, encoders, tasks = json.loads(done.stdout)
    return Path(cards), Path(package).parent, encoders, tasks


def test_cards_of_a_wheel_are_found_and_complete(wheel: Path, tmp_path: Path) -> None:
    cards, package, *names = look(tmp_path, wheel)
    assert package == wheel / "dune_bench"
    assert cards == wheel / "dune_bench" / "_cards"
    assert names == list(look(ROOT, None)[2:])
    assert all(names)


def test_cards_of_an_editable_install_are_those_of_the_checkout(tmp_path: Path) -> None:
    cards, package, *_ = look(tmp_path, build(tmp_path / "editable", "editable"))
    assert (cards, package) == (ROOT, ROOT / "dune_bench")


def test_cards_of_a_bare_checkout_are_found() -> None:
    assert look(ROOT, None)[:2] == (ROOT, ROOT / "dune_bench")


def test_only_dune_bench_is_installed(wheel: Path) -> None:
    names = {path.name for path in wheel.iterdir()}
    assert names == {"dune_bench", f"dune_bench-{dune_bench.__version__}.dist-info"}


def test_published_numbers_are_in_the_wheel(wheel: Path) -> None:
    file = Path("reports") / "reference" / "published.csv"
    assert (wheel / "dune_bench" / "_cards" / file).read_bytes() == (ROOT / file).read_bytes()


def test_the_wheel_is_marked_as_typed(wheel: Path) -> None:
    assert (wheel / "dune_bench" / "py.typed").is_file()


def test_the_wheel_carries_the_data_and_the_licence(wheel: Path) -> None:
    def data(root: Path) -> set[str]:
        folder = root / "dune_bench" / "data" / "minirooms"
        return {
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    assert data(wheel) == data(ROOT)
    info = wheel / f"dune_bench-{dune_bench.__version__}.dist-info"
    assert {path.name for path in (info / "licenses").iterdir()} == {"LICENSE", "NOTICE"}


def test_the_wheel_carries_what_the_html_report_is_made_of(wheel: Path) -> None:
    def assets(root: Path) -> set[str]:
        return {path.name for path in (root / "dune_bench" / "report" / "assets").iterdir()}

    assert assets(wheel) == assets(ROOT)
    assert {"page.html", "page.css", "main.js"} <= assets(ROOT)


def test_licence_is_the_full_apache_text() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "9. Accepting Warranty or Additional Liability" in text
    assert PROJECT["license"] == "Apache-2.0"


def test_the_version_is_the_same_everywhere() -> None:
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert dune_bench.__version__ == PROJECT["version"] == citation["version"]


def test_the_command_points_at_its_entry() -> None:
    from dune_bench.cli.main import main

    module, _, attribute = PROJECT["scripts"]["dune-bench"].partition(":")
    assert (main.__module__, main.__name__) == (module, attribute)


def test_doctor_knows_the_extras_of_pyproject() -> None:
    def names(requirements: list[str]) -> tuple[str, ...]:
        return tuple(text.partition(">")[0].partition("=")[0].strip() for text in requirements)

    assert {extra: names(found) for extra, found in PROJECT["optional-dependencies"].items()} == EXTRAS
    assert set(REQUIRED) <= set(names(PROJECT["dependencies"]))
