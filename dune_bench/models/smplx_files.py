"""Where the user's licensed SMPL-X files are, and whether they are what their names say.

Only `.npz` is read: a `.pkl` can run any code when it is loaded.  Nothing is copied; `prepare_smplx`
records the folder, and `load_body_model("smplx")` finds it again.  `$DUNE_BENCH_SMPLX`, a folder or a file,
comes before the record.

What is known of gender: each licensed file holds another body, so two files with the same template are
one under two names; a file with a `gender` entry says it itself.  The released files are not known to have
such an entry: that a lone file is the neutral one is then taken from its name.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dune_bench.errors import UnavailableError, UsageError
from dune_bench.models.body_models import BodyModel
from dune_bench.models.body_smplx import HINT, read_smplx
from dune_bench.registry.places import record_place, recorded_place

VARIABLE = "DUNE_BENCH_SMPLX"
PLACE = "smplx"
FILES = {"neutral": "SMPLX_NEUTRAL.npz", "male": "SMPLX_MALE.npz", "female": "SMPLX_FEMALE.npz"}
"""The licensed files by gender.  The same betas are another body in each of them."""
SUBFOLDERS = ("", "smplx", "models/smplx")
"""Where they lie in a folder: in itself, as the `smplx` package wants it, or as the archive unpacks."""
SAME_BODY_M = 1e-4
"""Templates no farther apart are one body, saved anew in another precision; two genders differ by
centimetres."""


def smplx_files(root: Path) -> dict[str, Path]:
    """The model files in a folder by gender, those of FILES that are there; neutral is.

    Raises UnavailableError without the neutral one, saying where it comes from and where it goes.
    """
    places = [root / sub for sub in SUBFOLDERS]
    found = {
        gender: place / name
        for gender, name in FILES.items()
        for place in reversed(places)
        if (place / name).is_file()
    }
    if "neutral" not in found:
        searched = ", ".join(sub + "/" if sub else "itself" for sub in SUBFOLDERS)
        near = [place / f"{Path(FILES['neutral']).stem}.pkl" for place in places]
        pickled = (
            "; the .pkl that is there is never loaded, because a pickle can run any code: take the .npz"
            if any(map(Path.is_file, near))
            else ""
        )
        raise UnavailableError(
            f"no {FILES['neutral']} in {root} (in {searched}){pickled}: register at "
            f"https://smpl-x.is.tue.mpg.de, download the SMPL-X model and put the file there"
        )
    return {gender: found[gender] for gender in FILES if gender in found}


def check_smplx(root: Path) -> dict[str, Path]:
    """The model files in a folder by gender, each read whole and checked as `read_smplx` does.

    Raises UnavailableError as `smplx_files`; UsageError for a damaged file, for one that states another
    gender than its name, or for two genders with the same template: one is a copy under another's name,
    and its errors would be wrong but plausible.
    """
    found, templates = smplx_files(root), dict[str, Tensor]()
    for gender, path in found.items():
        template = read_smplx(path)._template
        if (stated := stated_gender(path)) not in (None, gender):
            raise UsageError(f"{path} says that its gender is {stated!r}: give each file its own name")
        for other, known in templates.items():
            if float((template - known).abs().max()) <= SAME_BODY_M:
                raise UsageError(
                    f"{path} holds the body of {found[other]}: one is a renamed copy, get it again"
                )
        templates[gender] = template
    return found


def stated_gender(path: Path) -> str | None:
    """The text of an `.npz` file's entry `gender` in lower case, if it has one that is plain text."""
    try:
        with zipfile.ZipFile(path) as archive:
            value = np.load(io.BytesIO(archive.read("gender.npy")), allow_pickle=False)
    except (KeyError, ValueError, EOFError, OSError, zlib.error, zipfile.BadZipFile):
        return None  # no such entry, or a pickled one, which is never loaded
    if value.size != 1 or value.dtype.kind not in "US":
        return None
    text = value.reshape(-1)[0]
    return (text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)).strip().lower()


def smplx_source() -> tuple[Path, str] | None:
    """Where the model is looked for without a path, and who said so; None if nobody did."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser(), f"${VARIABLE}"
    place = recorded_place(PLACE)
    return None if place is None else (place.root, "recorded by `dune-bench prepare smplx`")


def neutral_file(path: Path | None = None) -> Path:
    """The neutral model's file: `path` itself, that of a folder, or (None) that of `smplx_source`.

    Only looks at names.  Raises UnavailableError if there is none, UsageError for a `.pkl`.
    """
    origin = ""
    if path is None:
        if (source := smplx_source()) is None:
            raise UnavailableError(f"the body model smplx has a licence of its own and does not ship: {HINT}")
        path, origin = source[0], f" ({source[1]})"
    if path.suffix == ".pkl":
        raise UsageError(f"{path}{origin}: a pickle can run any code and is never loaded: take the .npz")
    if path.is_dir():
        return smplx_files(path)["neutral"]
    if not path.is_file():
        raise UnavailableError(f"no body model file {path}{origin}: {HINT}")
    return path


def build(path: Path | None, dtype: torch.dtype) -> BodyModel:
    """The user's model, see `neutral_file`.  Raises what that and `read_smplx` raise."""
    return read_smplx(neutral_file(path), dtype)


def prepare_smplx(root: Path | None) -> str:
    """Checks the files in a folder (None: the one that is known already) and records it; says in one line
    what is there.  Raises what `check_smplx` raises, and UsageError for a file in place of a folder."""
    folder = _folder(root)
    found = check_smplx(folder)
    record_place(PLACE, folder, digests(found))
    return f"smplx: recorded {folder.absolute()}: {summary(found)}"


def verify_smplx(root: Path | None) -> tuple[list[str], str]:
    """Problems of the files, one line each, and what is there.  Raises UnavailableError without them."""
    folder = _folder(root)
    place = recorded_place(PLACE)
    try:
        found = check_smplx(folder)
    except UsageError as error:
        return [str(error)], ""
    known = place.sha256 if place is not None and place.root == folder.absolute() else {}
    now = digests(found)
    problems = [
        f"{FILES[gender]} of {folder} was there when the folder was recorded: put it back, or prepare again"
        for gender in FILES
        if gender in known and gender not in now
    ]
    problems += [
        f"{found[gender]} is not the file that was recorded: if that is meant, "
        f"`dune-bench prepare smplx --root {folder}` again"
        for gender, digest in now.items()
        if known.get(gender, digest) != digest
    ]
    return problems, f"smplx: ok in {folder.absolute()}: {summary(found)}"


def _folder(root: Path | None) -> Path:
    if root is None:
        if (source := smplx_source()) is None:
            raise UnavailableError(f"nobody said where the SMPL-X files are: {HINT}")
        root = source[0]
        # The variable may name the file itself; its neighbours are checked with it.
        return root.parent if root.suffix == ".npz" and root.is_file() else root
    if root.is_file():
        raise UsageError(f"--root {root} is a file: give the folder that it is in")
    return root


def digests(found: Mapping[str, Path]) -> dict[str, str]:
    """sha256 (hex) by gender."""
    return {gender: file_digest(path) for gender, path in found.items()}


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def summary(found: Mapping[str, Path]) -> str:
    """Which genders are there, what is used, and what cannot be known about the neutral file."""
    absent = [gender for gender in FILES if gender not in found]
    parts = [f"{', '.join(found)} {'are' if len(found) > 1 else 'is'} there"]
    parts += [f"{' and '.join(absent)} {'are' if len(absent) > 1 else 'is'} not"] if absent else []
    parts.append(f"evaluation uses neutral ({FILES['neutral']})")
    if len(found) > 1:
        parts.append("all that are there hold different bodies")
    if absent and stated_gender(found["neutral"]) is None:
        parts.append(f"a {' or '.join(absent)} file under the neutral's name would not be noticed")
    return "; ".join(parts)
