"""Panel of people: true and predicted bodies over the image and from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from dune_bench.data.samples import HumanSample, Person
from dune_bench.geometry.cameras import project
from dune_bench.metrics.human_errors import procrustes_aligned_mm
from dune_bench.metrics.human_matching import match_people
from dune_bench.report.panels.cameras import Plan, draw_camera, frame_plan, frustum, plan_along
from dune_bench.report.panels.canvas import LEGEND_LINE, Canvas, label, tile_size
from dune_bench.report.panels.colours import PREDICTION, RGB, TRUTH, rgb
from dune_bench.report.panels.export import meshes_ply, scene_glb
from dune_bench.report.panels.meshes import Mesh, from_above, over_image
from dune_bench.report.panels.shown import Panel, Shown

if TYPE_CHECKING:
    from dune_bench.models.body_models import BodyModel, BodyOutput
    from dune_bench.probes.hmr_prediction import PeoplePrediction

Floats = NDArray[np.float64]
Tile = tuple[float, float]
FRUSTUM = 0.5
UNCOUNTED = "#9a9a9a"
"""People whom nobody has to find: too little of them shows."""
_PIXELS = 640
"""Width of the rendered plan."""


@dataclass(frozen=True)
class Bodies:
    """Bodies of one image in the camera frame.

    vertices: float64 (n, V, 3), metres.  faces: int64 (F, 3).  heads: (n, 3).  counts: bool (n,), false
    for true people who are neither hits nor misses.  words: n, what to write at each head.
    """

    vertices: Floats
    faces: NDArray[np.int64]
    heads: Floats
    counts: NDArray[np.bool_]
    words: tuple[str, ...]

    def meshes(self, colour: str) -> list[Mesh]:
        colours = [rgb(colour if counted else UNCOUNTED) for counted in self.counts]
        return [Mesh(body, self.faces, c) for body, c in zip(self.vertices, colours, strict=True)]


@dataclass(frozen=True)
class People:
    """true: None for a photograph.  matches: (predicted, true) pairs.  failed: why there is no prediction."""

    found: Bodies
    true: Bodies | None
    matches: tuple[tuple[int, int], ...] = ()
    failed: str = ""


def draw(shown: Shown) -> Panel:
    """Image, true bodies (blue; grey: not counted), predicted bodies (orange) with their errors, and all
    from above.

    Scenes, in the camera frame: `predicted.ply`, `true.ply`, `scene.glb` with both and the camera.
    """
    people = _people(shown)
    sample = cast(HumanSample, shown.sample)
    image, size = sample.image.read(), sample.image.size
    tile = tile_size(size)
    tiles = 4 if people.true is not None else 3
    row = [tile[0]] * tiles
    sheet = Canvas(shown.heading, shown.subheading(), [row], [tile[1]], [LEGEND_LINE + 0.12])
    sheet.picture(0, 0, "image", image, size)
    entries: dict[str, Any] = {}
    if people.true is not None:
        counted = int(people.true.counts.sum())
        caption = f"truth: {counted} to be found, {len(people.true.counts) - counted} not counted"
        _overlay(sheet, 1, caption, (people.true, TRUTH), sample, image)
        entries = {"true, to be found": TRUTH, "true, neither hit nor miss": UNCOUNTED}
    caption = f"prediction: {len(people.found.counts)} found"
    axes = _overlay(sheet, tiles - 2, caption, (people.found, PREDICTION), sample, image)
    if people.failed:
        label(axes, size[1] / 2, size[0] * 0.9, f"failed: {people.failed}")
    _above(sheet, tiles - 1, sample, people, tile)
    sheet.legend(0, {**entries, "predicted": PREDICTION}, 3)
    return Panel(sheet.png(), _scenes(sample, people))


def _people(shown: Shown) -> People:
    """Everyone in the camera frame, matched as the protocol's strict matching does."""
    # Bodies need torch, which is loaded wherever there are predictions; importing this module is not.
    from dune_bench.probes.hmr_people import head_points, people_of

    sample = cast(HumanSample, shown.sample)
    prediction = cast("PeoplePrediction", shown.prediction)
    model, protocol = shown.probe.bodies.model, shown.probe.protocol
    faces = np.asarray(model.faces.numpy(), np.int64)
    vertices, keypoints = _arrays(prediction.bodies)
    heads = head_points(keypoints, model.keypoint_names)
    everyone = np.ones(len(vertices), bool)
    if not shown.truth:
        words = tuple(f"score {score:.2f}" for score in prediction.scores)
        return People(Bodies(vertices, faces, heads, everyone, words), None, failed=prediction.failed)
    people = people_of(sample, protocol.min_visible)
    pixels, _ = project(sample.K, keypoints)
    matching = match_people(pixels, people.keypoints, "strict", protocol.min_iou, ~people.counts)
    true_vertices = _posed(model, people.people, sample.id)
    errors = {p: procrustes_aligned_mm(vertices[p], true_vertices[t]) for p, t in matching.matches}
    words = tuple(_word(p, errors, matching.ignored) for p in range(len(vertices)))
    missed = tuple("missed" if t in matching.misses else "" for t in range(len(people.people)))
    true = Bodies(true_vertices, faces, people.heads, people.counts, missed)
    found = Bodies(vertices, faces, heads, everyone, words)
    return People(found, true, matching.matches, prediction.failed)


def _arrays(output: BodyOutput) -> tuple[Floats, Floats]:
    """Vertices and key points of posed bodies, float64."""
    return output.vertices.double().numpy(), output.keypoints.double().numpy()


def _posed(model: BodyModel, people: Sequence[Person], sample: str) -> Floats:
    """Vertices (n, V, 3) of true people in the camera frame."""
    import torch

    from dune_bench.probes.hmr_bodies import checked_bodies

    if not people:
        return np.zeros((0, model.vertex_count, 3))
    values = checked_bodies(model, people, f"sample {sample}")
    T = torch.from_numpy(np.stack([person.T_cam_body for person in people])).float()
    with torch.no_grad():
        return _arrays(model({name: value.float() for name, value in values.items()}).moved(T))[0]


def _word(index: int, errors: dict[int, float], ignored: Sequence[int]) -> str:
    if index in errors:
        return f"PA-PVE {errors[index]:.0f} mm"
    return "not counted" if index in ignored else "false"


def _overlay(
    sheet: Canvas,
    column: int,
    caption: str,
    side: tuple[Bodies, str],
    sample: HumanSample,
    image: RGB,
) -> Axes:
    """Bodies in their colour over the image, with their words above the heads."""
    bodies, colour = side
    height, width = sample.image.size
    drawn = over_image(bodies.meshes(colour), sample.K, image)
    axes = sheet.picture(0, column, caption, drawn, sample.image.size)
    pixels, depth = project(sample.K, bodies.heads)
    for word, (x, y), z in zip(bodies.words, pixels, depth, strict=True):
        above = y - 0.2 * sample.K[1, 1] / max(z, 0.1)
        if word and 0 <= x <= width:
            label(
                axes,
                float(np.clip(x, 0.1 * width, 0.9 * width)),
                float(np.clip(above, 12, height - 12)),
                word,
            )
    if not bodies.words:
        label(axes, width / 2, height / 2, "nobody")
    return axes


def _above(sheet: Canvas, column: int, sample: HumanSample, people: People, tile: Tile) -> None:
    """Bodies from over their heads, the camera below; dotted lines join matched heads."""
    axes = sheet.tile(0, column, "from above")
    plan = plan_along(_upright(people.true or people.found), np.eye(3))
    camera = frustum(sample.K, sample.image.size, np.eye(4), FRUSTUM)
    sides = (
        [(people.found, PREDICTION)]
        if people.true is None
        else [(people.true, TRUTH), (people.found, PREDICTION)]
    )
    flat = [plan.flat(bodies.vertices.reshape(-1, 3)) for bodies, _ in sides]
    box = frame_plan(axes, np.concatenate([plan.flat(camera), *flat]), tile)
    for bodies, colour in sides:
        _layer(axes, bodies.meshes(colour), plan, box, tile)
    for p, t in people.matches:
        if people.true is not None:
            ends = plan.flat(np.stack([people.true.heads[t], people.found.heads[p]]))
            axes.plot(ends[:, 0], ends[:, 1], ":", color="#222222", linewidth=1.4, zorder=4)
    draw_camera(axes, plan, camera, "#333333")


def _upright(bodies: Bodies) -> Floats:
    """Up (3,) in the camera frame: cameras look down on people, who mostly stand or sit.  The mean from a
    body's middle to its head, as far as that is not clearly something else."""
    spines = bodies.heads - bodies.vertices.mean(1)
    spines = spines / np.maximum(np.linalg.norm(spines, axis=1, keepdims=True), 1e-9)
    camera = np.array([0.0, -1.0, 0.0])
    return np.asarray(camera + 3 * spines[spines @ camera > 0.5].sum(0))


def _layer(axes: Axes, meshes: Sequence[Mesh], plan: Plan, box: Floats, tile: Tile) -> None:
    shape = (round(_PIXELS * tile[1] / tile[0]), _PIXELS)
    picture, cover = from_above(meshes, plan.right, plan.ahead, box, shape)
    layer = np.concatenate([picture / 255, 0.85 * cover[..., None]], axis=-1)
    axes.imshow(layer, extent=(*box[0], *box[1]), aspect="auto", zorder=2)
    axes.set_xlim(*box[0])
    axes.set_ylim(*box[1])


def _scenes(sample: HumanSample, people: People) -> dict[str, bytes]:
    sides = {"predicted": people.found.meshes(PREDICTION)}
    if people.true is not None:
        sides["true"] = people.true.meshes(TRUTH)
    named = {f"{name} {i + 1}": mesh for name, meshes in sides.items() for i, mesh in enumerate(meshes)}
    camera = frustum(sample.K, sample.image.size, np.eye(4), FRUSTUM)
    files = {f"{name}.ply": meshes_ply(meshes) for name, meshes in sides.items()}
    return files | {"scene.glb": scene_glb({}, named, {"camera": (camera, rgb("#333333"))})}
