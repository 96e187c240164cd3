"""Cards: what can be evaluated, declared in YAML and checked into frozen models.

A card holds data only.  Unknown keys are errors that name the file and the key.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dune_bench.errors import UsageError, plain_problem
from dune_bench.registry.suggest import did_you_mean

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
C = TypeVar("C", bound="Card")
TASK_ID = re.compile(r"(?P<probe>[a-z0-9_]+)/(?P<dataset>[\w.-]+)/(?P<protocol>[\w.-]+)@(?P<version>\d+)")


class Card(BaseModel):
    """Base of every card and part of a card."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def fingerprint(value: Any) -> str:
    """sha256 (hex) of a JSON-able value in canonical form: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class WeightSource(Card):
    """One place to get weights from.  Exactly one of url, hub, package, file."""

    url: str | None = None
    hub: str | None = None
    """Hub repository id and file, `org/name:file`."""
    package: str | None = None
    """A file in an installed distribution, `distribution:path/in/package`."""
    install: str | None = None
    """The command that installs that distribution."""
    file: str | None = None
    size: int | None = None
    """Bytes; cards may write `420 MB`."""
    sha256: str | None = None
    licence: str
    licence_url: str | None = None

    @field_validator("size", mode="before")
    @classmethod
    def _bytes(cls, value: object) -> object:
        if isinstance(value, str):
            match = re.fullmatch(r"([\d.]+) ?(B|KB|MB|GB)", value)
            if not match:
                raise ValueError("write a size as 420 MB")
            return round(float(match[1]) * _UNITS[match[2]])
        return value

    @model_validator(mode="after")
    def _one_place(self) -> WeightSource:
        if sum(x is not None for x in (self.url, self.hub, self.package, self.file)) != 1:
            raise ValueError("name exactly one of url, hub, package, file")
        return self


class EncoderCard(Card):
    """An encoder.  `kind` names the adapter, which validates `arch`."""

    id: str = Field(pattern=r"^[A-Za-z0-9][\w.:+-]*$")
    kind: str
    description: str = ""
    arch: dict[str, Any] = Field(default_factory=dict)
    weights: tuple[WeightSource, ...] = ()
    """Empty: the encoder needs none (random, pixels)."""
    decoders: tuple[WeightSource, ...] = ()
    """Places, in order, of the two-view decoder released with these weights; empty: there is none."""
    human_heads: tuple[WeightSource, ...] = ()
    """The same of the human head."""
    views: dict[str, str] = Field(default_factory=lambda: {"default": "norm"})
    """Probe name (or `default`) -> view."""
    resolution: int | None = None
    """Native resolution, pixels of a side."""
    teachers: tuple[str, ...] = ()
    trained_on: tuple[str, ...] = ()
    cite: str | None = None

    def fingerprint(self) -> str:
        """sha256 (hex) of all that the card says of the encoder itself.  Not of `decoders` and
        `human_heads`: what was released is part of the heads that it gives."""
        return fingerprint(self.model_dump(mode="json", exclude={"decoders", "human_heads"}))


class DatasetUse(Card):
    """Which data a task uses.  name: `minirooms@1`."""

    name: str
    fit: str | None = None
    score: str
    folds_by: Literal["group"] = "group"


class InputPolicy(Card):
    """What the network is given.

    resolution: side in pixels of the square input.  resize: `stretch` resamples to the square
    (bicubic, antialiased), `none` keeps the size.
    """

    resolution: int | None = Field(default=None, ge=1)
    resize: Literal["stretch", "none"] = "stretch"
    dtype: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _consistent(self) -> InputPolicy:
        if (self.resize == "stretch") != (self.resolution is not None):
            raise ValueError("resize: stretch needs a resolution, resize: none takes none")
        return self


class MetricSpec(Card):
    """A metric of a task.  margin: the smallest difference that matters in practice."""

    id: str = Field(pattern=r"^[a-z0-9_]+(@[\w.]+)?$")
    unit: str
    higher_is_better: bool
    primary: bool = False
    margin: float | None = Field(default=None, gt=0)


class TaskCard(Card):
    """probe × dataset × protocol.  The id is `probe/dataset/protocol@version`."""

    id: str
    description: str = ""
    suites: tuple[str, ...] = ()
    probe: str
    dataset: DatasetUse
    input: InputPolicy
    protocol: dict[str, Any] = Field(default_factory=dict)
    """Constants; the probe validates them."""
    requires: dict[str, str] = Field(default_factory=dict)
    """Role -> id of the task whose fitted head is an input."""
    metrics: tuple[MetricSpec, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = ()
    """Fit seeds of a protocol with random fits; empty for a deterministic one."""
    references: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> TaskCard:
        match = TASK_ID.fullmatch(self.id)
        if not match:
            raise ValueError("write the id as probe/dataset/protocol@version")
        if match["probe"] != self.probe:
            raise ValueError(f"the id says probe {match['probe']!r}, the card {self.probe!r}")
        if sum(m.primary for m in self.metrics) != 1:
            raise ValueError("mark exactly one metric primary: true")
        if len({m.id for m in self.metrics}) != len(self.metrics):
            raise ValueError("a metric id stands twice")
        return self

    @property
    def protocol_name(self) -> str:
        """`convex@1`."""
        return self.id.rsplit("/", 1)[1]

    @property
    def primary(self) -> MetricSpec:
        return next(m for m in self.metrics if m.primary)

    def protocol_fingerprint(self) -> str:
        """Identity of everything declared here that moves a number of the fitted head."""
        return fingerprint(
            {
                "id": self.id,
                "probe": self.probe,
                "protocol": self.protocol,
                "folds_by": self.dataset.folds_by,
                "requires": self.requires,
            }
        )


def load_card(path: Path, model: type[C]) -> C:
    """Reads one YAML card.  Raises UsageError naming file, key and the nearest known key."""
    return parse_card(read_mapping(path), model, str(path))


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML file of keys.  Raises UsageError naming the file."""
    try:
        # libyaml's safe loader: `list` reads every card, and the pure Python one takes ten times as long.
        loader = _SAFE_LOADER(path.read_bytes())
        try:
            raw = loader.get_single_data()
        finally:
            loader.dispose()
    except OSError as error:
        raise UsageError(f"{path}: cannot read the card: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: not a YAML card: {reason}") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: a card is a mapping of keys, found {type(raw).__name__}")
    return raw


def parse_card(raw: dict[str, Any], model: type[C], where: str) -> C:
    """Validates a card's content.  Raises UsageError."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UsageError(f"{where}: " + "; ".join(_explain(e, model) for e in error.errors())) from error


def _explain(error: Any, model: type[Card]) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "card"
    if error["type"] == "extra_forbidden":
        owner: Any = model
        for part in error["loc"][:-1]:
            if isinstance(part, str):
                owner = _part_model(owner, part)
        known = list(getattr(owner, "model_fields", {}))
        return f"unknown key {key!r}{did_you_mean(str(error['loc'][-1]), known)}"
    return f"{key}: {plain_problem(error['msg'])}"


def _part_model(owner: Any, field: str) -> Any:
    """The card model behind a field, also inside tuple[...] and unions."""
    info = getattr(owner, "model_fields", {}).get(field)
    candidates = [info.annotation] if info else []
    while candidates:
        candidate = candidates.pop()
        if isinstance(candidate, type) and issubclass(candidate, Card):
            return candidate
        candidates.extend(getattr(candidate, "__args__", ()))
    return None
