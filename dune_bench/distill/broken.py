"""Images that could not be read: listed in one file by all processes, counted, and limited.

The file is the only state that the loader processes of all ranks share; what they do with an image never
depends on it, so a batch stays a function of its picks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from dune_bench.distill.sources import printable
from dune_bench.errors import TaskError

FILE = "broken-images.txt"
MAX_SHARE = 0.01
_NAMED = 5


@dataclass(frozen=True)
class BrokenImage:
    """source: `group/source`.  image: its name there.  reason: why it could not be read."""

    source: str
    image: str
    reason: str

    @property
    def line(self) -> str:
        """`source`, `image` and `reason`, separated by tabs."""
        return "\t".join(printable(part) for part in (self.source, self.image, self.reason)) + "\n"


class BrokenImages:
    """The list of unreadable images of a training.

    file: `broken-images.txt` beside the log; None: every process keeps its own list.  It lives on over a
    resume: each image stands in it once.  total: of all images.  max_share: of them that may be broken.
    """

    def __init__(self, file: Path | None, total: int, max_share: float = MAX_SHARE) -> None:
        self.file = file
        self._total, self._max_share = total, max_share
        self._found: dict[tuple[str, str], BrokenImage] = {}
        self._read = 0

    def report(self, broken: BrokenImage) -> None:
        """Lists an image, if it is not yet.  Raises TaskError naming files if there are too many."""
        key = _key(broken)
        if self.file is None:
            self._found[key] = broken
        elif key not in self._found:
            try:
                self._add(self.file, broken)
            except OSError as error:
                reason = error.strerror or error
                raise TaskError(
                    f"{self.file}: cannot list the unreadable image {named([broken])}: {reason}"
                ) from error
        self._check()

    def found(self) -> tuple[BrokenImage, ...]:
        """All that was listed until now, by whichever process."""
        if self.file is not None:
            self._catch_up()
        return tuple(self._found.values())

    def note(self) -> str | None:
        """What the end of a training says of them, or None if every image could be read."""
        count = len(self.found())
        if not count:
            return None
        where = f": see {self.file}" if self.file is not None else ""
        return (
            f"{count:,} of {self._total:,} images could not be read ({100 * count / self._total:.2g} %) and "
            f"were replaced{where}"
        )

    def _add(self, file: Path, broken: BrokenImage) -> None:
        """Other processes write too: what they found comes first, then what is new is added."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            self._catch_up(mend=True)
            if _key(broken) not in self._found:
                with file.open("ab") as stream:
                    stream.write(broken.line.encode("utf-8"))
            self._catch_up()

    def _check(self) -> None:
        count = len(self._found)
        anew = f" and remove {self.file}" if self.file is not None else ""
        if count > self._max_share * self._total:
            raise TaskError(
                f"{count:,} of {self._total:,} images cannot be read, more than {100 * self._max_share:g} %: "
                f"{named(tuple(self._found.values()))}; mend the data{anew}, or raise `max_broken`"
            )

    def _catch_up(self, mend: bool = False) -> None:
        """Reads what was added since.  mend: takes away a last line that a killed process left unfinished;
        only under the lock, where nobody is writing."""
        if self.file is None or not self.file.is_file():
            return
        with self.file.open("r+b" if mend else "rb") as stream:
            stream.seek(self._read)
            data = stream.read()
            whole = data[: data.rfind(b"\n") + 1]
            if mend and len(whole) < len(data):
                stream.truncate(self._read + len(whole))
        self._read += len(whole)
        for line in whole.decode("utf-8", "backslashreplace").split("\n")[:-1]:
            source, image, reason = [*line.split("\t"), "", ""][:3]
            self._found.setdefault((source, image), BrokenImage(source, image, reason))


def named(broken: Sequence[BrokenImage]) -> str:
    """The first few images with their reasons, for a message."""
    shown = "; ".join(f"{b.source}: {b.image} ({b.reason})" for b in broken[:_NAMED])
    return shown + (f"; and {len(broken) - _NAMED:,} more" if len(broken) > _NAMED else "")


def _key(broken: BrokenImage) -> tuple[str, str]:
    return printable(broken.source), printable(broken.image)
