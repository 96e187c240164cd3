"""Downloads are kept as safetensors: nothing to execute, no optimiser states, quick to load."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dune_bench.encoders.checkpoint import State, file_sha256
from dune_bench.encoders.weights import Located, file_name
from dune_bench.registry.cards import EncoderCard

logger = logging.getLogger(__name__)


def read_copy(card: EncoderCard, folder: Path) -> State | None:
    """The cached copy of a download, unless it is damaged or of no source of the card's."""
    for record_path in sorted(folder.glob("*.safetensors.json")):
        record = json.loads(record_path.read_text(encoding="utf-8"))
        copy, original = record_path.with_suffix(""), folder / record["original"]
        # A file put there by hand later on counts more than the copy of an earlier one.
        if original.is_file() and original.stat().st_mtime > copy.stat().st_mtime:
            continue
        if any(s.url == record["source"] and s.sha256 in (None, record["sha256"]) for s in card.weights):
            try:
                return dict(load_file(copy))
            except (SafetensorError, OSError) as error:
                logger.warning("%s is damaged (%s): made anew", copy, error)
    return None


def keep_copy(card: EncoderCard, state: State, found: Located, folder: Path) -> None:
    """Writes the tensors of a download and a record of their origin beside them, and removes what was
    just downloaded, unless the card's decoder is in the same file.  If there is no room, the download
    stays and a warning says so."""
    copy = folder / f"{found.path.stem}.safetensors"
    partial = folder / f"{copy.name}.{os.getpid()}.part"
    record = {
        "original": found.path.name,
        "sha256": file_sha256(found.path),
        "size": found.path.stat().st_size,
        "source": found.source.url,
        "licence": found.source.licence,
        "licence_url": found.source.licence_url,
    }
    try:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, partial)
        partial.replace(copy)
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        partial.replace(copy.with_name(copy.name + ".json"))
    except (SafetensorError, OSError) as error:
        logger.warning("no safetensors copy of %s (%s): the download itself is kept", found.path, error)
        return
    finally:
        partial.unlink(missing_ok=True)
    if found.fetched and all(
        file_name(source) != found.path.name for source in (*card.decoders, *card.human_heads)
    ):
        found.path.unlink()
