"""The Map-free submission: a zip with one `pose_{scene}.txt` per scene, read safely and written.

A line is `seq1/frame_00000.jpg qw qx qy qz tx ty tz confidence`: nine fields, single spaces, UTF-8;
the pose is world-to-camera, the world is the reference camera (PROTOCOLS §5.1).  Truth files have the
same lines without the confidence.  A bad line is an issue with its number, and its frame a failure;
a bad archive is an error.  Nothing is ever unpacked to disk.
"""

from __future__ import annotations

import lzma
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from dune_bench.errors import UsageError

MAX_LINES = 1_000_000
MAX_FILE_BYTES = 2**28
MAX_ARCHIVE_BYTES = 2**30
MAX_MEMBERS = 100_000
MAX_NOTES = 20
ZERO_NORM = 1e-8
BYTE_ORDER_MARK = "\ufeff".encode()
MEMBER = re.compile(r"pose_(?P<scene>[A-Za-z0-9][A-Za-z0-9_.-]*)\.txt")

_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError)
"""What zipfile raises for a damaged archive (RuntimeError: encrypted, or an unknown method; ValueError:
a name that is not UTF-8, an offset before the file's start)."""

Mode = Literal["mapfree-compat", "strict"]
Key = int | str


@dataclass(frozen=True)
class Answer:
    """One frame's pose.  q: qw qx qy qz, norm > 0, as written; t: metres; both world-to-camera."""

    q: tuple[float, float, float, float]
    t: tuple[float, float, float]
    confidence: float = 0.0


@dataclass
class Issues:
    """What was wrong, in words with file and line: the first MAX_NOTES of each file, and a count."""

    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, file: str, why: str, line: int | None = None) -> None:
        """Notes one thing wrong in `file`."""
        self.counts[file] = self.counts.get(file, 0) + 1
        if self.counts[file] <= MAX_NOTES:
            self.notes.append(f"{file}:{line}: {why}" if line else f"{file}: {why}")
        elif self.counts[file] == MAX_NOTES + 1:
            self.notes.append(f"{file}: more of the kind, not listed")

    @property
    def total(self) -> int:
        """How many things were wrong."""
        return sum(self.counts.values())


def parse_poses(
    data: bytes, file: str, mode: Mode, issues: Issues, with_confidence: bool = True
) -> dict[Key, Answer]:
    """Poses by frame, in file order.

    `mapfree-compat`: the key is the frame number in the path (its sequence is ignored, so that seq0
    and seq1 collide), of equal keys the last wins and keeps the first's place, negative confidence
    counts.  `strict`: the key is the path; a path answered twice is answered by neither line;
    negative confidence is a bad line; a byte order mark is left out and noted (in the other form it
    belongs to the first path, as in the official program).  A path that repeats is noted in both.
    In both, lines with `#` are comments, and lines that are not UTF-8, have another number of fields,
    a field that is no finite number, or a quaternion of norm 0 are left out and noted in `issues`.
    Raises UsageError for more than MAX_LINES lines.
    """
    poses: dict[Key, Answer] = {}
    paths: set[str] = set()
    repeated: set[Key] = set()
    if mode == "strict" and data.startswith(BYTE_ORDER_MARK):
        issues.add(file, "begins with a UTF-8 byte order mark, which is left out", 1)
        data = data.removeprefix(BYTE_ORDER_MARK)
    for number, line in _lines(data, file, issues):
        parsed = _parse_line(line, 9 if with_confidence else 8)
        if isinstance(parsed, str):
            issues.add(file, parsed, number)
            continue
        path, answer = parsed
        key = path if mode == "strict" else _frame_number(path)
        if key is None:
            issues.add(file, f"{path[:60]!r} has no frame number before its extension", number)
        elif mode == "strict" and answer.confidence < 0:
            issues.add(file, "negative confidence", number)
        else:
            if path in paths:
                issues.add(file, f"frame {path[:60]!r} again", number)
                repeated.add(key)
            paths.add(path)
            poses[key] = answer
    if mode == "strict":
        for key in repeated:
            del poses[key]
    return poses


def read_submission(path: Path, issues: Issues) -> dict[str, bytes]:
    """Bytes of each pose file by scene.

    Members other than `pose_{scene}.txt` at the archive's root are not read, and noted.  Raises
    UsageError, naming the member, for: no zip, a damaged or encrypted one, a name that is absolute
    or climbs out of the archive, a name twice, too many members or bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members)
            scenes = {}
            for member in members:
                match = MEMBER.fullmatch(member.filename)
                if match:
                    scenes[match["scene"]] = archive.read(member)
                elif not member.is_dir():
                    issues.add(member.filename, "not a pose_<scene>.txt at the archive's root: not read")
            return scenes
    except _DAMAGE as error:
        raise UsageError(f"{path}: not a readable zip ({error}): make the submission again") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_MEMBERS:
        raise UsageError(f"{path}: {len(members)} members, at most {MAX_MEMBERS} are read")
    if sum(member.file_size for member in members) > MAX_ARCHIVE_BYTES:
        raise UsageError(f"{path}: unpacks to more than {MAX_ARCHIVE_BYTES >> 20} MiB")
    seen = set()
    for member in members:
        name = member.filename
        # orig_filename: what the archive says; zipfile itself cuts at a zero byte.
        for text in (name, member.orig_filename.replace("\\", "/")):
            parts = PurePosixPath(text)
            if parts.is_absolute() or ".." in parts.parts or re.match(r"[A-Za-z]:", text) or "\0" in text:
                raise UsageError(f"{path}: member {member.orig_filename!r} points outside the archive")
        if name in seen:
            raise UsageError(f"{path}: member {name!r} occurs twice; keep one")
        seen.add(name)
        if member.flag_bits & 0x1:
            raise UsageError(f"{path}: member {name!r} is encrypted; submit it without a password")
        if member.file_size > MAX_FILE_BYTES:
            raise UsageError(f"{path}: member {name!r} unpacks to more than {MAX_FILE_BYTES >> 20} MiB")


def write_submission(path: Path, scenes: Mapping[str, Mapping[str, Answer]]) -> None:
    """Writes the official zip: per scene a file, also for a scene without any answer, since
    the official program counts a missing file as five times its frames.

    scenes: scene -> frame path (`seq1/frame_00000.jpg`) -> answer.  The same answers give the same
    bytes.  Raises UsageError for what the format cannot say: a name with spaces, a non-finite number.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for scene in sorted(scenes):
            if not MEMBER.fullmatch(f"pose_{scene}.txt"):
                raise UsageError(f"scene name {scene!r} cannot be a file's name")
            text = "".join(_format_line(frame, answer) for frame, answer in scenes[scene].items())
            entry = zipfile.ZipInfo(f"pose_{scene}.txt", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text.encode())


def _format_line(frame: str, answer: Answer) -> str:
    numbers = (*answer.q, *answer.t, answer.confidence)
    if not re.fullmatch(r"[^\s#]+", frame):
        raise UsageError(f"frame name {frame!r} cannot stand in a pose line")
    if not all(map(math.isfinite, numbers)) or math.hypot(*answer.q) <= ZERO_NORM or answer.confidence < 0:
        raise UsageError(f"{frame}: the pose is not finite, no rotation, or of negative confidence")
    return " ".join([frame, *(repr(float(number)) for number in numbers)]) + "\n"


def _lines(data: bytes, file: str, issues: Issues) -> Iterator[tuple[int, str]]:
    """Numbered lines of UTF-8 text, without comments and empty ones."""
    if data.count(b"\n") > MAX_LINES:
        raise UsageError(f"{file}: more than {MAX_LINES} lines")
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            issues.add(file, f"not UTF-8 ({error.reason})", number)
            continue
        if line and "#" not in line:
            yield number, line


def _parse_line(line: str, fields: int) -> tuple[str, Answer] | str:
    """Path and pose, or what is wrong."""
    path, *texts = line.split(" ")
    if len(texts) != fields - 1:
        missing = ": the confidence is missing" if (len(texts), fields) == (7, 9) else ""
        return f"{len(texts) + 1} fields separated by single spaces, not {fields}{missing}"
    numbers = _numbers(texts)
    if numbers is None:
        return "a field is no finite number"
    w, x, y, z, a, b, c, *rest = numbers
    if math.hypot(w, x, y, z) <= ZERO_NORM:
        return "the quaternion is zero"
    return path, Answer((w, x, y, z), (a, b, c), *rest)


def _numbers(texts: Iterable[str]) -> list[float] | None:
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _frame_number(path: str) -> int | None:
    digits = path[-9:-4]
    return int(digits) if digits.isascii() and digits.isdigit() else None
