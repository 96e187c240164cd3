"""Where weights come from: the cache, then the card's sources in order; never a silent fallback."""

from __future__ import annotations

import logging
import re
import socket
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

from dune_bench.encoders.checkpoint import file_sha256
from dune_bench.encoders.download import Progress, download
from dune_bench.errors import UnavailableError
from dune_bench.registry.cards import EncoderCard, WeightSource
from dune_bench.registry.paths import weights_cache

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Located:
    """A weights file on this machine, the source it is of, and whether it was just downloaded."""

    path: Path
    source: WeightSource
    fetched: bool = False


@dataclass(frozen=True)
class _Wanted:
    """A file that a card names.  what: the subject of the message that it is not here.  other_ways: how
    that message ends."""

    what: str
    sources: tuple[WeightSource, ...]
    folder: Path
    other_ways: str = ""


def weights_dir(card: EncoderCard, cache: Path | None = None) -> Path:
    """The folder of one encoder's weights in the cache."""
    root = weights_cache() if cache is None else cache / "weights"
    return root / re.sub(r"[^\w.+-]", "_", card.id)


def file_name(source: WeightSource) -> str:
    """The name of a source's file."""
    if source.url:
        return Path(urlsplit(source.url).path).name
    place = source.hub or source.package or source.file or ""
    return Path(place.rpartition(":")[2]).name


def locate(
    card: EncoderCard,
    *,
    cache: Path | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Located:
    """The weights file of a card, downloaded if need be.

    The cache folder is looked at first, so a file put there by hand is found.  Raises
    UnavailableError: one line that names file, size, licence, source, where to put it, and why each
    source failed.
    """
    what, other_ways = f"weights of encoder {card.id} are", ", or pass --weights PATH (or --weights random)"
    return _locate(_Wanted(what, card.weights, weights_dir(card, cache), other_ways), offline, progress)


ReleasedPart = Literal["decoders", "human_heads"]
"""What may be released with an encoder: the field of its card that says where."""
_PARTS = {
    "decoders": ("decoder", "--suite mini-long --tasks recon3d"),
    "human_heads": ("human head", "--suite mini-long --tasks hmr"),
}


def locate_released(
    card: EncoderCard,
    part: ReleasedPart,
    *,
    cache: Path | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Located:
    """The file with a part that was released with a card's encoder, found as by `locate`, in the folder
    of the encoder's weights.  Raises UnavailableError, also if none was released."""
    name, otherwise = _PARTS[part]
    sources: tuple[WeightSource, ...] = getattr(card, part)
    if not sources:
        raise UnavailableError(f"no {name} was released with encoder {card.id}: train one ({otherwise})")
    what = f"the {name} released with encoder {card.id} is"
    return _locate(_Wanted(what, sources, weights_dir(card, cache)), offline, progress)


def _locate(wanted: _Wanted, offline: bool, progress: Progress | None) -> Located:
    for source in wanted.sources:
        path = wanted.folder / file_name(source)
        if path.is_file() and (source.sha256 is None or file_sha256(path) == source.sha256):
            return Located(path, source)
    reasons = []
    for source in wanted.sources:
        try:
            path = _obtain(source, wanted.folder, offline, progress)
            return Located(path, source, fetched=source.url is not None)
        except UnavailableError as error:
            reasons.append(str(error).removeprefix(f"{source.url}: "))
    raise UnavailableError(_how_to_go_on(wanted, reasons))


def _obtain(source: WeightSource, folder: Path, offline: bool, progress: Progress | None) -> Path:
    if source.file:
        path = Path(source.file).expanduser()
        if not path.is_file():
            raise UnavailableError(f"{path} does not exist")
        return path
    if source.package:
        return package_file(source)
    if source.hub:
        return _from_hub(source, offline)
    if source.url is None or offline:
        raise UnavailableError("--offline forbids the download")
    logger.warning("downloading %s, licence: %s", source.url, licence_text(source))
    path = folder / file_name(source)
    download(source.url, path, size=source.size, sha256=source.sha256, progress=progress)
    return path


def package_file(source: WeightSource) -> Path:
    """A file inside an installed distribution; the package is not imported.  Raises UnavailableError."""
    name, _, inside = (source.package or "").partition(":")
    try:
        path = Path(str(metadata.distribution(name).locate_file(inside)))
    except metadata.PackageNotFoundError as error:
        raise UnavailableError(f"package {name} is not installed") from error
    if not path.is_file():
        raise UnavailableError(f"package {name} is installed, but has no {inside}")
    return path


def _from_hub(source: WeightSource, offline: bool) -> Path:
    # Slow to import, and only some encoders need it.
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    # The bases of the hub's error are those of its transport library, whichever that is.
    failures: tuple[type[Exception], ...] = (HfHubHTTPError, OSError)
    failures += tuple(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    repository, _, file = (source.hub or "").partition(":")
    # Not hf_hub_download(local_files_only=True): that one may ask the network for other things.
    cached = try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    if offline:
        raise UnavailableError("--offline forbids the download")
    _require_host(constants.ENDPOINT)
    logger.warning("downloading %s from the hub, licence: %s", source.hub, licence_text(source))
    try:
        return Path(hf_hub_download(repository, file))
    except failures as error:
        reason = " ".join(str(error).split())[:160]
        raise UnavailableError(f"the hub did not give {source.hub} ({reason})") from error


def _require_host(endpoint: str) -> None:
    """Fails at once where the hub's client would retry for half a minute: without a network."""
    host = urlsplit(endpoint).hostname or endpoint
    if getproxies():
        return
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise UnavailableError(f"no connection to {host} ({error.strerror or error})") from error


def licence_text(source: WeightSource) -> str:
    return f"{source.licence} ({source.licence_url})" if source.licence_url else source.licence


def _how_to_go_on(wanted: _Wanted, reasons: list[str]) -> str:
    source = wanted.sources[0]
    size = "" if source.size is None else f"{source.size / 1e6:.0f} MB, "
    text = f"{wanted.what} not on this machine: {file_name(source)} ({size}licence {licence_text(source)}); "
    text += f"{'; '.join(dict.fromkeys(reasons))}. "
    if source.package:
        name = source.package.partition(":")[0]
        return text + f"Install them {source.install or f'with pip install {name}'}"
    places = dict.fromkeys(s.url or f"the hub, {s.hub}" for s in wanted.sources if s.url or s.hub)
    get = f"Get it from {', or '.join(places)} and put it" if places else "Put it"
    return text + f"{get} into {wanted.folder}{wanted.other_ways}"
