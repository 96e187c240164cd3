"""Files of students: DUNE's checkpoint layout, and a folder with safetensors and an encoder card.

A student's state here: tensors `encoder.…` as in `VisionTransformer`, `projectors.TEACHER.…`,
`teacher_norms.TEACHER.normalizers.{cls,patch}.{mean,std}`, teachers under their canonical names.
Source of the layout: PROTOCOLS §0.1 and the lists in tests/golden.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dune_bench.encoders.checkpoint import State, load_torch, plain_state, read_checkpoint
from dune_bench.encoders.dune import (
    FILE_TEACHERS,
    our_names,
    projector_shapes,
    shape_of,
    without_other_projectors,
)
from dune_bench.encoders.vit import VitConfig
from dune_bench.errors import TaskError, UsageError
from dune_bench.registry.cards import EncoderCard, WeightSource, parse_card
from dune_bench.registry.folders import CARD, card_of_folder, id_of_checkpoint

WEIGHTS = "encoder.safetensors"
"""The tensors of a student's folder, beside its card."""

_OURS = "dune_bench"
"""Entry of `args`, and of safetensors' metadata, in which we say what tensors do not: the shape's `arch`."""
_FILE_NAMES = {ours: theirs for theirs, ours in FILE_TEACHERS.items()}
_LICENCE = "that of who trained it"


@dataclass(frozen=True)
class StudentFile:
    """A student read back.  iteration: steps that it was trained for, if the file says so.  args: plain
    values that were stored beside it."""

    config: VitConfig
    state: State
    iteration: int | None = None
    args: Mapping[str, Any] = field(default_factory=dict)


def released_names(state: Mapping[str, Tensor]) -> State:
    """A student's state under the names of the released files.  Raises TaskError for any other tensor."""
    renamed: State = {}
    for name, value in state.items():
        part, _, rest = name.partition(".")
        if part == "encoder":
            renamed[re.sub(r"^encoder\.blocks\.", "encoder.blocks.0.", name)] = value
        elif part in ("projectors", "teacher_norms"):
            teacher, _, inside = rest.partition(".")
            renamed[f"{part}.{_FILE_NAMES.get(teacher, teacher)}.{inside}"] = value
        else:
            raise TaskError(f"{name!r} is no tensor of a student (encoder., projectors., teacher_norms.)")
    return renamed


def student_names(state: Mapping[str, Tensor], where: str) -> State:
    """The inverse of `released_names`: a released file's tensors as a student's state, with the teachers'
    statistics.  Raises TaskError for a file of something else."""
    student = our_names(state, where)
    for name, value in state.items():
        if match := re.fullmatch(r"teacher_norms\.([^.]+)\.(.+)", name):
            student[f"teacher_norms.{FILE_TEACHERS.get(match[1], match[1])}.{match[2]}"] = value
    return student


def save_checkpoint(
    path: Path, state: Mapping[str, Tensor], config: VitConfig, iteration: int, args: Mapping[str, Any]
) -> None:
    """Writes a torch file in DUNE's layout: `model`, `iter`, `args`; no optimiser.

    args: plain values (JSON-able) for `args`, a Namespace as in the released files, where the original
    program looks for `image_size`, `enc_args`, `proj_args`, `teachers`; the last is filled in here unless
    given.  Raises TaskError if the file cannot be written, TypeError for values that are not plain.
    """
    model = {name: _plain(tensor) for name, tensor in released_names(state).items()}
    teachers = [_FILE_NAMES.get(teacher, teacher) for teacher in _teachers(state)]
    content = {"teachers": teachers} | dict(args) | {_OURS: {"arch": config.model_dump()}}
    # Through JSON: what is read back with an allow-list must be plain.
    namespace = argparse.Namespace(**json.loads(json.dumps(content)))
    whole = {"model": model, "iter": iteration, "args": namespace}
    _written(path, lambda partial: torch.save(whole, partial))


def save_folder(folder: Path, card: EncoderCard, state: Mapping[str, Tensor]) -> Path:
    """Writes what `--encoder FOLDER` takes: safetensors, then the card, whose path is returned.

    card: of `dune_card` or `timm_card`; its weights become the file written here.  state: a student's state,
    or for a card of another kind than `dune` the tensors under the names its adapter reads.
    Raises TaskError if the folder cannot be written.
    """
    tensors = {n: _plain(t) for n, t in (released_names(state) if card.kind == "dune" else state).items()}
    metadata = {"format": "pt", _OURS: json.dumps({"arch": card.arch})}
    _written(folder / WEIGHTS, lambda partial: save_file(tensors, partial, metadata))
    licence = card.weights[0].licence if card.weights else _LICENCE
    source = WeightSource(file=WEIGHTS, licence=licence, size=(folder / WEIGHTS).stat().st_size)
    content = card.model_copy(update={"weights": (source,)}).model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
    text = f"# dune-bench run --encoder FOLDER, this file's folder\n{text}"
    _written(folder / CARD, lambda partial: partial.write_text(text, encoding="utf-8"))
    return folder / CARD


def dune_card(
    id: str,
    config: VitConfig,
    state: Mapping[str, Tensor],
    *,
    resolution: int | None = None,
    description: str = "",
    trained_on: Iterable[str] = (),
    licence: str = _LICENCE,
) -> EncoderCard:
    """The card of a student on our ViT.  state: of the student; teachers whose projector is a transformer
    become views.  resolution: pixels of a side in training (default: the position table's).

    Raises UsageError for an id that is no name.
    """
    # Names are all that is looked at, so that this works on the meta device, too.
    teachers = tuple(projector_shapes(without_other_projectors(dict(state), id)))
    facts = {"arch": config.model_dump(), "teachers": teachers, "views": _views(teachers)}
    size = resolution or config.table * config.patch
    return _card(id, "dune", facts, size, description, trained_on, licence)


def timm_card(
    id: str,
    name: str,
    *,
    resolution: int | None = None,
    description: str = "",
    trained_on: Iterable[str] = (),
    licence: str = _LICENCE,
) -> EncoderCard:
    """The card of a student that is timm's model `name`.  It has no projections: its state is that of the
    timm model alone.  Raises UsageError for an id that is no name."""
    facts = {"arch": {"name": name}, "views": _views(())}
    return _card(id, "timm", facts, resolution, description, trained_on, licence)


def checkpoint_card(path: Path) -> EncoderCard:
    """The card of a checkpoint in DUNE's layout, `.pth` or `.safetensors`, from the tensors themselves.

    Raises UsageError if there is no such file, TaskError if it is damaged, holds code, or is of something
    else than a DUNE student.
    """
    student = _read_file(path)
    what = f"the student in {path.name}"
    card = dune_card(id_of_checkpoint(path), student.config, student.state, description=what)
    source = WeightSource(file=str(path.resolve()), licence=_LICENCE)
    return card.model_copy(update={"weights": (source,)})


def read_student(path: Path) -> StudentFile:
    """A student to go on with, from a checkpoint file in DUNE's layout or from a folder of `save_folder`.

    Raises UsageError if there is no such file or folder, or it holds no DUNE student; TaskError as
    `checkpoint_card`.
    """
    if not path.is_dir():
        return _read_file(path)
    card = card_of_folder(path)
    files = [source.file for source in card.weights if source.file]
    if card.kind != "dune" or not files:
        raise UsageError(f"{path / CARD}: not the card of a DUNE student with a weights file (kind: dune)")
    return _read_file(Path(files[0]))


def _read_file(path: Path) -> StudentFile:
    if not path.is_file():
        raise UsageError(f"checkpoint {path} does not exist")
    tensors, args, iteration = (_safetensors if path.suffix == ".safetensors" else _torch_file)(path)
    if "encoder.cls_token" not in tensors:
        raise TaskError(
            f"{path}: no 'encoder.cls_token' in it: not a checkpoint of DUNE; for weights of another encoder "
            "name its card, and pass them by --weights"
        )
    state = student_names(tensors, str(path))
    config = _config(args, state, str(path))
    return StudentFile(config, state, iteration, {k: v for k, v in args.items() if k != _OURS})


def _safetensors(path: Path) -> tuple[State, Mapping[str, Any], None]:
    tensors = read_checkpoint(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_OURS, "{}")
        return tensors, {_OURS: json.loads(text)}, None
    except (SafetensorError, OSError, ValueError) as error:
        raise TaskError(f"{path}: its metadata cannot be read ({error}): write it again") from error


def _torch_file(path: Path) -> tuple[State, Mapping[str, Any], int | None]:
    content = load_torch(path)
    if not isinstance(content, Mapping):
        return plain_state(content, path), {}, None
    args, iteration = content.get("args"), content.get("iter")
    plain = vars(args) if isinstance(args, argparse.Namespace) else {}
    return plain_state(content, path), plain, iteration if isinstance(iteration, int) else None


def _config(args: Mapping[str, Any], state: State, where: str) -> VitConfig:
    """The shape that the file says, if we wrote it, else that of its tensors."""
    ours = args.get(_OURS)
    arch = ours.get("arch") if isinstance(ours, Mapping) else None
    if isinstance(arch, Mapping):
        return parse_card(dict(arch), VitConfig, f"{where}, arch")
    return shape_of(state, where)


def _teachers(state: Mapping[str, Tensor]) -> list[str]:
    return sorted({name.split(".")[1] for name in state if name.startswith("projectors.")})


def _views(teachers: Iterable[str]) -> dict[str, str]:
    """As of the released students (encoders/dune_vitb.yaml says why)."""
    views = {"default": "norm", "recon3d": "raw", "reloc": "raw"}
    return views | ({"semseg": "proj:dinov2reg_vitl14"} if "dinov2reg_vitl14" in teachers else {})


def _card(
    id: str,
    kind: str,
    facts: Mapping[str, Any],
    resolution: int | None,
    description: str,
    trained_on: Iterable[str],
    licence: str,
) -> EncoderCard:
    content = {
        "id": id,
        "kind": kind,
        "description": description,
        "weights": [{"file": WEIGHTS, "licence": licence}],
        "resolution": resolution,
        "trained_on": tuple(trained_on),
        **facts,
    }
    return parse_card(content, EncoderCard, f"card of {id!r}")


def _plain(tensor: Tensor) -> Tensor:
    """Without graph and of its own: files of slices would hold the whole."""
    return tensor.detach().cpu().contiguous().clone()


def _written(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file that is complete or absent.  Raises TaskError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(path)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise TaskError(f"cannot write {path} ({reason}): free space, or choose another place") from error
    finally:
        if partial.is_file():
            partial.unlink()
