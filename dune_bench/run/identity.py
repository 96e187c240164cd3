"""What an encoder is, remembered, so that a run with nothing to do needs not load any.

A memory holds only while every file it came from is untouched (path, size, time of change, inode),
and the code that loads encoders is the same.  Encoders from a user's Python file, from objects and
from plug-ins are never remembered: nobody can list the files they depend on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dune_bench
from dune_bench.encoders.base import Encoder
from dune_bench.errors import TaskError, UnavailableError
from dune_bench.registry.cards import EncoderCard, WeightSource, fingerprint
from dune_bench.registry.lookup import Registry
from dune_bench.registry.paths import identity_cache
from dune_bench.results.store import write_atomic
from dune_bench.run.provenance import version

_OWN = "dune_bench.encoders."
_LIBRARIES = ("torch", "timm", "numpy", "safetensors", "onnx")

Stamp = list[Any]


@dataclass(frozen=True)
class EncoderFacts:
    """An encoder as results know it.  identity: see `Encoder.identity`."""

    weights: str
    adapter: str
    identity: dict[str, Any]
    default_view: str
    teachers: tuple[str, ...]

    @property
    def digest(self) -> str | None:
        digest = self.identity["weights_digest"]
        return None if digest is None else str(digest)


def facts_of(encoder: Encoder) -> EncoderFacts:
    return EncoderFacts(
        encoder.weights, encoder.adapter, encoder.identity(), encoder.default_view, encoder.teachers
    )


def unknown_facts(card: EncoderCard, weights: str) -> EncoderFacts:
    """What can be said of an encoder that could not be loaded: what was asked for."""
    asked = {"auto": "released", "random": "random"}.get(weights, "file")
    return EncoderFacts(asked, card.kind, {"weights_digest": None}, "norm", card.teachers)


def recall(card: EncoderCard, weights: str) -> EncoderFacts | None:
    """What is remembered of an encoder, if nothing that it depends on changed."""
    path = _memory(card, weights)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["stamps"] != _stamps(card, weights):
            return None
        facts = record["facts"]
        return EncoderFacts(**{**facts, "teachers": tuple(facts["teachers"])})
    except (OSError, ValueError, KeyError, TypeError):
        # A cache: whatever is wrong with it, the encoder itself can say the same.
        return None


def pinned(name: str, registry: Registry) -> str:
    """`NAME@DIGEST` of the encoder in a folder, if its digest is remembered; else the name as it is.

    Two folders may hold students of one name: results tell them apart by their weights.
    """
    card = registry.encoder(name)
    facts = recall(card, "auto")
    return name if facts is None or facts.digest is None else f"{card.id}@{facts.digest}"


def remember(card: EncoderCard, weights: str, encoder: Encoder, registry: Registry) -> None:
    """Writes down what a loaded encoder is, if that can be checked later."""
    facts = facts_of(encoder)
    target = registry.adapters.get(card.kind, "")
    if card.kind == "file" or not target.startswith(_OWN) or facts.digest is None:
        return
    if weights == "auto" and registry.adapter(card.kind).sources(card) != card.weights:
        return  # the adapter has sources of its own, which `_stamps` does not know
    record = {"stamps": _stamps(card, weights), "facts": asdict(facts)}
    try:
        write_atomic(_memory(card, weights), json.dumps(record).encode())
    except TaskError:
        # Only speed is lost: the next run loads the encoder.
        return


def _memory(card: EncoderCard, weights: str) -> Path:
    asked = weights if weights in ("auto", "random") else str(Path(weights).expanduser().resolve())
    return identity_cache() / f"{fingerprint([card.model_dump(mode='json'), asked])}.json"


def _stamps(card: EncoderCard, weights: str) -> list[Stamp]:
    """State of all that an encoder depends on: libraries, our code, every place of its weights."""
    code = Path(dune_bench.__file__).parent / "encoders"
    files = sorted(code.glob("*.py"))
    if weights == "auto":
        files += [place for source in card.weights for place in _places(card, source)]
    elif weights != "random":
        files.append(Path(weights).expanduser().resolve())
    libraries = [[name, version(name)] for name in _LIBRARIES]
    return libraries + [stamp(file) for file in files]


def _places(card: EncoderCard, source: WeightSource) -> list[Path]:
    from dune_bench.encoders.weights import file_name, package_file, weights_dir

    folder = weights_dir(card)
    places = [folder / file_name(source), *sorted(folder.glob("*.safetensors*"))]
    if source.file:
        places.append(Path(source.file).expanduser())
    if source.package:
        try:
            places.append(package_file(source))
        except UnavailableError:
            places.append(Path(source.package))  # stamped as missing
    if source.hub:
        from huggingface_hub import try_to_load_from_cache

        repository, _, name = source.hub.partition(":")
        found = try_to_load_from_cache(repository, name)
        places.append(Path(found).resolve() if isinstance(found, str) else Path(name))
    return places


def stamp(path: Path) -> Stamp:
    """Tells a file from the same one after a change: path, size, time of change, inode."""
    try:
        stat = path.stat()
    except OSError:
        return [str(path), None, None, None]
    return [str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino]
