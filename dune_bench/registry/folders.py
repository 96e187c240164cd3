"""Encoders by their place: a folder with a card and its weights, as training writes it; a file.

No torch here.
"""

from __future__ import annotations

import re
from pathlib import Path

from dune_bench.errors import UsageError
from dune_bench.registry.cards import EncoderCard, WeightSource, load_card

CARD = "encoder.yaml"
CHECKPOINTS = (".pth", ".pt", ".safetensors")
"""Ends of the names of checkpoint files."""


def has_card(folder: str) -> bool:
    """Whether this names a folder with an encoder's card."""
    try:
        return (Path(folder) / CARD).is_file()
    except OSError:  # too long for a path, or not to be looked at
        return False


def id_of_place(name: str) -> str:
    """What the encoder at a place (a folder with a card, a checkpoint file, a Python file) is called in
    results; any other name as it is.  Raises UsageError for a damaged card."""
    file, _, attribute = name.partition(":")
    if file.endswith(".py"):
        # Two encoders of one file need two names.
        return Path(file).stem + (f":{attribute}" if attribute else "")
    if has_card(name):
        return load_card(Path(name) / CARD, EncoderCard).id
    return id_of_checkpoint(Path(name)) if name.endswith(CHECKPOINTS) else name


def id_of_checkpoint(path: Path) -> str:
    """The name of a checkpoint file's encoder: the file's, as far as it can be in an id."""
    return re.sub(r"[^\w.:+-]", "_", path.stem).lstrip("_.:+-") or "checkpoint"


def card_of_folder(folder: Path) -> EncoderCard:
    """The card in a folder, with the places of its files made absolute.

    A card's `file:` is relative to the folder and stays inside it.  A card of kind `file` is refused: it
    would run code that nobody named.  Raises UsageError.
    """
    path = folder / CARD
    card = load_card(path, EncoderCard)
    if card.kind == "file":
        raise UsageError(f"{path}: kind 'file' runs code: name the Python file itself with --encoder")
    places = {
        name: tuple(_inside(folder, source, path) for source in getattr(card, name))
        for name in ("weights", "decoders", "human_heads")
    }
    return card.model_copy(update={name: places[name] for name in places if places[name]})


def _inside(folder: Path, source: WeightSource, card: Path) -> WeightSource:
    if source.file is None:
        return source
    place = (folder / source.file).resolve()
    if not place.is_relative_to(folder.resolve()):
        raise UsageError(
            f"{card}: file {source.file!r} lies outside of the folder: put it there, or write a card into "
            "./.dune_bench/encoders/"
        )
    return source.model_copy(update={"file": str(place)})
