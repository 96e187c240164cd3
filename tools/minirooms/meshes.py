"""Reads catalogue models (OBJ + MTL + pictures in a zip) into upright, metric triangle parts."""

from __future__ import annotations

import io
import posixpath
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dune_bench.errors import TaskError
from tools.minirooms.catalogue import Model

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_MAX_FACES = 200_000
_MAX_UV = 200.0
_MAX_TEXTURE = 512
_CLEAR = 0.16
"""Glass more transparent than this is left out, so that colour and depth see the same surface."""


@dataclass
class Material:
    """Diffuse colour (linear RGB), optional texture (H, W, 3) linear, gloss in [0, 1]."""

    colour: tuple[float, float, float] = (0.7, 0.7, 0.7)
    opacity: float = 1.0
    gloss: float = 0.0
    picture: str | None = None


@dataclass(frozen=True)
class Part:
    """Triangles of one material.  vertices, normals: (V, 3), metres, z up, front towards -y, origin
    at the centre of the underside; normals is None for flat shading; uv: (V, 2) or None, v upwards;
    texture: linear float32 (H, W, 3) or None."""

    vertices: F64
    faces: I64
    normals: F64 | None
    uv: F64 | None
    colour: tuple[float, float, float]
    gloss: float
    texture: NDArray[np.float32] | None


def srgb_to_linear(values: NDArray[np.floating]) -> F64:
    """The sRGB transfer function, inverse, on [0, 1]."""
    v = np.asarray(values, np.float64)
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def parse_mtl(text: str) -> dict[str, Material]:
    """Materials by name.  Only Kd, Ks, Ns, d, Tr and map_Kd are used."""
    materials: dict[str, Material] = {}
    current = Material()
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2:
            continue
        key, rest = words[0].lower(), words[1:]
        if key == "newmtl":
            current = materials.setdefault(" ".join(rest), Material())
        elif key == "kd" and len(rest) >= 3:
            r, g, b = srgb_to_linear(np.clip([float(x) for x in rest[:3]], 0, 1))
            current.colour = (float(r), float(g), float(b))
        elif key == "ks" and len(rest) >= 3:
            current.gloss = float(np.clip(np.mean([float(x) for x in rest[:3]]), 0, 1))
        elif key == "d":
            current.opacity = float(rest[-1])
        elif key == "tr":
            current.opacity = 1 - float(rest[0])
        elif key == "map_kd":
            current.picture = rest[-1]
    return materials


@dataclass
class _Obj:
    positions: list[tuple[float, ...]] = field(default_factory=list)
    uvs: list[tuple[float, ...]] = field(default_factory=list)
    normals: list[tuple[float, ...]] = field(default_factory=list)
    corners: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)


def _corner(word: str, obj: _Obj) -> tuple[int, int, int]:
    parts = (word + "//").split("/")[:3]
    counts = (len(obj.positions), len(obj.uvs), len(obj.normals))
    index = [
        (int(p) - 1 if int(p) > 0 else n + int(p)) if p else -1 for p, n in zip(parts, counts, strict=True)
    ]
    return index[0], index[1], index[2]


def parse_obj(text: str) -> _Obj:
    """Positions, texture coordinates, normals, and triangle corners (fans) by material name."""
    obj = _Obj()
    bucket = obj.corners.setdefault("", [])
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        key = words[0]
        if key == "v":
            obj.positions.append(tuple(float(x) for x in words[1:4]))
        elif key == "vt":
            obj.uvs.append((float(words[1]), float(words[2]) if len(words) > 2 else 0.0))
        elif key == "vn":
            obj.normals.append(tuple(float(x) for x in words[1:4]))
        elif key == "f":
            corners = [_corner(word, obj) for word in words[1:]]
            for k in range(1, len(corners) - 1):
                bucket += (corners[0], corners[k], corners[k + 1])
        elif key == "usemtl":
            bucket = obj.corners.setdefault(" ".join(words[1:]), [])
        elif key == "mtllib":
            obj.libraries.append(" ".join(words[1:]))
    return obj


def _picture(archive: zipfile.ZipFile, name: str) -> NDArray[np.float32]:
    with Image.open(io.BytesIO(archive.read(name))) as picture:
        rgba = picture.convert("RGBA")
        rgba.thumbnail((_MAX_TEXTURE, _MAX_TEXTURE))
        pixels = np.asarray(rgba, np.float64) / 255
    # Cut-out leaves: show the visible pixels' mean colour where the picture is transparent.
    alpha = pixels[..., 3:]
    mean = (pixels[..., :3] * alpha).sum((0, 1)) / max(float(alpha.sum()), 1e-9)
    return srgb_to_linear(pixels[..., :3] * alpha + mean * (1 - alpha)).astype(np.float32)


def _upright(positions: F64, model: Model) -> tuple[F64, F64]:
    """The linear map and offset from file coordinates (y up, front +z) to the model's box."""
    turn = np.eye(3) if model.rotation is None else np.array(model.rotation).reshape(3, 3)
    to_z_up = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    linear = to_z_up @ turn
    turned = positions @ linear.T
    low, high = turned.min(0), turned.max(0)
    if (high - low).max() <= 0:
        raise TaskError(f"{model.id}: the mesh has no extent; drop it from the catalogue")
    scale = np.array(model.size) / np.maximum(high - low, 1e-9)
    linear = np.diag(scale) @ linear
    offset = -scale * np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    return linear, offset


def load_parts(folder: Path, model: Model) -> list[Part]:
    """The opaque parts of a model.  Raises TaskError if it is damaged: no triangles, too many, or
    texture coordinates that are not finite or beyond 200 repeats."""
    with zipfile.ZipFile(folder / f"{model.library}.sh3f") as archive:
        obj = parse_obj(archive.read(model.path).decode("latin-1"))
        base = posixpath.dirname(model.path)
        names = set(archive.namelist())
        materials: dict[str, Material] = {}
        for library in obj.libraries:
            member = posixpath.normpath(posixpath.join(base, library))
            if member in names:
                materials |= parse_mtl(archive.read(member).decode("latin-1"))
        pictures = {
            name: _picture(archive, member)
            for name, material in materials.items()
            if material.picture
            and (member := posixpath.normpath(posixpath.join(base, material.picture))) in names
        }
    return _parts(model, obj, materials, pictures)


def _parts(
    model: Model, obj: _Obj, materials: dict[str, Material], pictures: dict[str, NDArray[np.float32]]
) -> list[Part]:
    used = {name: corners for name, corners in obj.corners.items() if corners}
    count = sum(len(corners) for corners in used.values()) // 3
    if not 0 < count <= _MAX_FACES:
        raise TaskError(f"{model.id}: {count} triangles, expected 1 ... {_MAX_FACES}")
    positions = np.array(obj.positions, np.float64)
    everything = np.array([corner for corners in used.values() for corner in corners])
    linear, offset = _upright(positions[np.unique(everything[:, 0])], model)
    positions = positions @ linear.T + offset
    normals = np.array(obj.normals, np.float64).reshape(-1, 3) @ np.linalg.inv(linear)
    uvs = np.array(obj.uvs, np.float64).reshape(-1, 2)
    parts = []
    for name, corners in used.items():
        material = materials.get(name, Material())
        if material.opacity < _CLEAR:
            continue
        unique, index = np.unique(np.array(corners), axis=0, return_inverse=True)
        faces = index.reshape(-1, 3)
        uv = uvs[unique[:, 1]] if len(uvs) and (unique[:, 1] >= 0).all() else None
        texture = pictures.get(name) if uv is not None else None
        if (
            texture is not None
            and uv is not None
            and not (np.isfinite(uv).all() and np.abs(uv).max() < _MAX_UV)
        ):
            raise TaskError(f"{model.id}: texture coordinates are broken")
        given = normals[unique[:, 2]] if len(normals) and (unique[:, 2] >= 0).all() else None
        shading = None if given is None else _unit(given, positions[unique[:, 0]], faces)
        colour = _frosted(material) if material.opacity < 0.7 else material.colour
        parts.append(Part(positions[unique[:, 0]], faces, shading, uv, colour, material.gloss, texture))
    if not parts:
        raise TaskError(f"{model.id}: nothing opaque in it")
    return parts


def _frosted(material: Material) -> tuple[float, float, float]:
    """Half-transparent glass is rendered opaque and pale, so that it has one depth."""
    weight = 0.5
    r, g, b = (weight * c + (1 - weight) * 0.62 for c in material.colour)
    return r, g, b


def _unit(vectors: F64, vertices: F64, faces: I64) -> F64:
    """Normals of length one; where the file has none (zero, not finite), those of the triangles."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = ~np.isfinite(lengths[:, 0]) | (lengths[:, 0] < 1e-9)
    unit = np.where(bad[:, None], 0.0, vectors) / np.where(bad[:, None], 1.0, lengths)
    if bad.any():
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        own = np.zeros_like(vertices)
        for k in range(3):
            np.add.at(own, faces[:, k], np.cross(b - a, c - a))
        own_lengths = np.linalg.norm(own, axis=1, keepdims=True)
        own = np.where(own_lengths > 1e-15, own / np.maximum(own_lengths, 1e-15), np.array([0.0, 0.0, 1.0]))
        unit[bad] = own[bad]
    return np.asarray(unit)
