"""Builds the mitsuba scene of a room: the shell, furniture, panels, people, and their object table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.minirooms import textures
from tools.minirooms.backend import mitsuba
from tools.minirooms.classes import INDEX
from tools.minirooms.meshes import Part
from tools.minirooms.room import Item, Panel, Room

F64 = NDArray[np.float64]
PartsOf = Callable[[Item], list[Part]]
_GLOSSY = 0.25
_UNTEXTURED = 0.06


@dataclass(frozen=True)
class Figure:
    """A person as the scene needs it: vertices (V, 3) world metres, faces (F, 3), vertex_rgb (V, 3)
    linear albedo in [0, 1]."""

    id: str
    vertices: F64
    faces: NDArray[np.int64]
    vertex_rgb: F64


@dataclass(frozen=True)
class SceneObject:
    """One row of the object table.  label: index of CLASSES."""

    index: int
    label: int
    model: str


@dataclass
class BuiltScene:
    """scene: the mitsuba scene; objects: the table; shape_objects: object index by shape position."""

    scene: Any
    objects: list[SceneObject]
    shape_objects: list[int]


def shape_name(position: int) -> str:
    """The scene's name of the shape that was added as number `position`."""
    return f"shape{position:04d}"


class SceneBuilder:
    """Collects shapes with their object; `build` makes the scene."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.mi = mitsuba()
        self.rng = rng
        self.objects: list[SceneObject] = []
        self._shapes: dict[str, Any] = {}
        self._owner: list[int] = []
        self._plain = {
            gloss: self.mi.load_dict(_bsdf({"type": "mesh_attribute", "name": "vertex_color"}, gloss))
            for gloss in (0.0, 0.5)
        }

    def new_object(self, label: str, model: str) -> int:
        """A new row of the object table; returns its index."""
        index = len(self.objects)
        self.objects.append(SceneObject(index, INDEX[label], model))
        return index

    def add_shape(self, owner: int, shape: Any) -> None:
        """A finished mitsuba shape (or its dict) that belongs to an object."""
        self._shapes[shape_name(len(self._owner))] = shape
        self._owner.append(owner)

    def mesh(
        self,
        owner: int,
        vertices: F64,
        faces: NDArray[np.int64],
        bsdf: Any,
        normals: F64 | None = None,
        uv: F64 | None = None,
        rgb: F64 | None = None,
    ) -> None:
        """A triangle mesh; uv with v upwards (flipped here for mitsuba); rgb per vertex."""
        mi = self.mi
        props = mi.Properties()
        props["mesh_bsdf"] = bsdf
        mesh = mi.Mesh(
            shape_name(len(self._owner)),
            len(vertices),
            len(faces),
            props,
            normals is not None,
            uv is not None,
        )
        if rgb is not None:
            mesh.add_attribute("vertex_color", 3, rgb.astype(np.float32).ravel())
        parameters = mi.traverse(mesh)
        parameters["vertex_positions"] = mi.Float(vertices.astype(np.float32).ravel())
        parameters["faces"] = mi.UInt32(faces.astype(np.uint32).ravel())
        if normals is not None:
            parameters["vertex_normals"] = mi.Float(normals.astype(np.float32).ravel())
        if uv is not None:
            flipped = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)
            parameters["vertex_texcoords"] = mi.Float(flipped.astype(np.float32).ravel())
        parameters.update()
        self.add_shape(owner, mesh)

    def textured(self, texture: NDArray[np.float32], gloss: float) -> Any:
        """A BSDF with a linear picture."""
        return self.mi.load_dict(_bsdf(_bitmap(self.mi, texture), gloss))

    def build(self) -> BuiltScene:
        """The scene of everything added."""
        scene = self.mi.load_dict({"type": "scene", **self._shapes})
        return BuiltScene(scene, list(self.objects), list(self._owner))

    # ---- what rooms are made of ----

    def shell(self, room: Room) -> None:
        """Floor, ceiling, walls and skirting boards."""
        width, depth, height = room.size
        floor = textures.floor_surface(self.rng)
        ceiling = textures.ceiling_surface(self.rng)
        self._quad(
            "floor", "floor", np.array([[0, 0, 0], [width, 0, 0], [width, depth, 0], [0, depth, 0.0]]), floor
        )
        top = np.array([[0, depth, height], [width, depth, height], [width, 0, height], [0, 0, height]])
        self._quad("ceiling", "ceiling", top, ceiling)
        main = textures.wall_surface(self.rng)
        accent = textures.wall_surface(self.rng) if self.rng.uniform() < 0.5 else main
        accented = int(self.rng.integers(len(room.segments)))
        board = float(self.rng.uniform(0.06, 0.12))
        paint = np.array(textures.hue(self.rng, (0, 0.2), (0.75, 0.95)) ** 2.2)
        for number, wall in enumerate(room.segments):
            # Counter-clockwise walls seen from inside run right to left.
            (x0, y0), (x1, y1) = wall.end, wall.start
            corners = np.array([[x0, y0, 0], [x1, y1, 0], [x1, y1, height], [x0, y0, height]])
            owner = self._quad("wall", "wall", corners, accent if number == accented else main)
            (nx, ny) = wall.normal
            inner = np.array([nx, ny, 0]) * 0.01
            low = np.array([[x0, y0, 0], [x1, y1, 0], [x1, y1, board], [x0, y0, board]]) + inner
            lip = np.array([low[3], low[2], low[2] - inner, low[3] - inner])
            vertices, faces = (
                np.concatenate([low, lip]),
                np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]]),
            )
            self.mesh(owner, vertices, faces, self._plain[0.0], rgb=np.tile(paint, (8, 1)))

    def _quad(self, label: str, model: str, corners: F64, surface: textures.Surface) -> int:
        owner = self.new_object(label, model)
        u = np.linalg.norm(corners[1] - corners[0]) / surface.width_m
        v = np.linalg.norm(corners[3] - corners[0]) / surface.height_m
        shift = self.rng.uniform(size=2)
        uv = np.array([[0, 0], [u, 0], [u, v], [0, v]]) + shift
        bsdf = self.textured(surface.texture, surface.gloss)
        self.mesh(owner, corners, np.array([[0, 1, 2], [0, 2, 3]]), bsdf, uv=uv)
        return owner

    def item(self, item: Item, parts: list[Part]) -> None:
        """A furniture model; untextured parts are merged into one mesh with vertex colours."""
        owner = self.new_object(item.model.label, item.model.id)
        T = item.world_from_model
        for gloss in (0.0, 0.5):
            plain = [p for p in parts if p.texture is None and (p.gloss > _GLOSSY) == (gloss > 0)]
            smooth = [p for p in plain if p.normals is not None]
            for group in (smooth, [p for p in plain if p.normals is None]):
                if group:
                    self._merged(owner, group, T, gloss)
        for part in parts:
            if part.texture is not None:
                bsdf = self.textured(part.texture, part.gloss if part.gloss > _GLOSSY else 0.0)
                vertices = part.vertices @ T[:3, :3].T + T[:3, 3]
                normals = None if part.normals is None else part.normals @ T[:3, :3].T
                self.mesh(owner, vertices, part.faces, bsdf, normals=normals, uv=part.uv)

    def _merged(self, owner: int, parts: list[Part], T: F64, gloss: float) -> None:
        starts = np.cumsum([0, *(len(p.vertices) for p in parts[:-1])])
        vertices = np.concatenate([p.vertices for p in parts]) @ T[:3, :3].T + T[:3, 3]
        faces = np.concatenate([p.faces + start for p, start in zip(parts, starts, strict=True)])
        # Pure black or white paint does not exist, and it would starve the denoiser of contrast.
        colours = [np.clip(np.array(p.colour), 0.02, 0.85) for p in parts]
        rgb = np.concatenate([np.tile(c, (len(p.vertices), 1)) for c, p in zip(colours, parts, strict=True)])
        normals = None
        if parts[0].normals is not None:
            normals = np.concatenate([p.normals for p in parts if p.normals is not None]) @ T[:3, :3].T
        self.mesh(owner, vertices, faces, self._plain[gloss], normals=normals, rgb=rgb)

    def panel(self, panel: Panel, daylight: float) -> None:
        """A poster, a window pane showing the outdoors, or a lamp in the ceiling."""
        mi = self.mi
        u, v = np.array(panel.u), np.array(panel.v)
        normal = np.cross(u, v) / np.linalg.norm(np.cross(u, v))
        T = np.eye(4)
        T[:3, 0], T[:3, 1], T[:3, 2], T[:3, 3] = u, v, normal, panel.centre
        shape: dict[str, Any] = {
            "type": "rectangle",
            "id": shape_name(len(self._owner)),
            "to_world": mi.ScalarTransform4f(T),
        }
        black = {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.0}}
        if panel.kind == "poster":
            picture = textures.poster(self.rng)[::-1]
            shape["bsdf"] = _bsdf(_bitmap(mi, np.ascontiguousarray(picture)), 0.0)
            owner = self.new_object("decoration", "poster")
        elif panel.kind == "pane":
            picture = np.ascontiguousarray(textures.outdoors(self.rng)[::-1] * daylight)
            shape |= {"bsdf": black, "emitter": {"type": "area", "radiance": _bitmap(mi, picture)}}
            owner = self.new_object("opening", "window pane")
        else:
            radiance = {"type": "rgb", "value": list(panel.radiance)}
            shape |= {"bsdf": black, "emitter": {"type": "area", "radiance": radiance}}
            owner = self.new_object("lamp", "ceiling panel")
        self.add_shape(owner, mi.load_dict(shape))

    def figure(self, figure: Figure) -> int:
        """A person; returns its object index."""
        owner = self.new_object("person", figure.id)
        normals = smooth_normals(figure.vertices, figure.faces)
        rgb = np.clip(figure.vertex_rgb, 0.02, 0.85)
        self.mesh(owner, figure.vertices, figure.faces, self._plain[0.0], normals=normals, rgb=rgb)
        return owner


def smooth_normals(vertices: F64, faces: NDArray[np.int64]) -> F64:
    """Area-weighted vertex normals (V, 3)."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    face_normals = np.cross(b - a, c - a)
    total = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(total, faces[:, k], face_normals)
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-15))


def _bitmap(mi: Any, texture: NDArray[np.float32]) -> dict[str, Any]:
    # raw: the values are linear already and must not go through a colour conversion.
    return {"type": "bitmap", "data": mi.TensorXf(texture), "raw": True, "wrap_mode": "repeat"}


def _bsdf(colour: dict[str, Any], gloss: float) -> dict[str, Any]:
    if gloss <= _UNTEXTURED:
        return {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": colour}}
    inner = {
        "type": "principled",
        "base_color": colour,
        "roughness": float(np.clip(0.6 - 0.5 * gloss, 0.15, 0.6)),
        "specular": 0.4,
    }
    return {"type": "twosided", "bsdf": inner}


def furnished(room: Room, parts_of: PartsOf, rng: np.random.Generator, daylight: float) -> SceneBuilder:
    """A builder with the shell, the furniture and the panels; people are added to it afterwards.

    Objects come in this order: floor, ceiling, walls, items (in the order of `room.items`), panels.
    """
    builder = SceneBuilder(rng)
    builder.shell(room)
    for item in room.items:
        builder.item(item, parts_of(item))
    for panel in room.panels:
        builder.panel(panel, daylight)
    return builder
