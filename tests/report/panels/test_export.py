"""PLY and GLB files read back by another program's reader, with axes as documented."""

from __future__ import annotations

import io

import numpy as np
import trimesh

from dune_bench.report.panels.cameras import frustum
from dune_bench.report.panels.export import cloud_ply, meshes_ply, scene_glb
from tests.report.panels.test_meshes import BLUE, RED, box

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-3, 3, (50, 3))
COLOURS = RNG.integers(0, 256, (50, 3), dtype=np.uint8)


def load(data: bytes, kind: str) -> object:
    return trimesh.load(io.BytesIO(data), file_type=kind)


def test_ply_cloud_reads_back_in_the_camera_axes() -> None:
    cloud = load(cloud_ply(POINTS, COLOURS), "ply")
    np.testing.assert_allclose(cloud.vertices, POINTS, atol=1e-6)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(cloud.colors[:, :3], COLOURS)  # type: ignore[attr-defined]


def test_points_without_depth_are_left_out_not_put_at_zero() -> None:
    holes = POINTS.copy()
    holes[::5] = np.nan
    cloud = load(cloud_ply(holes, COLOURS), "ply")
    assert len(cloud.vertices) == 40  # type: ignore[attr-defined]
    scene = load(scene_glb({"cloud": (holes, COLOURS)}, {}, {}), "glb")
    assert len(scene.geometry["cloud"].vertices) == 40  # type: ignore[attr-defined]


def test_cloud_without_any_point_is_a_valid_file() -> None:
    nothing = np.full((3, 3), np.nan)
    assert b"element vertex 0\n" in cloud_ply(nothing, COLOURS[:3])


def test_ply_meshes_keep_every_face_and_colour() -> None:
    mesh = load(meshes_ply([box((0, 0, 3), 1, RED), box((2, 0, 5), 1, BLUE)]), "ply")
    assert len(mesh.faces) == 24  # type: ignore[attr-defined]
    assert abs(mesh.volume - 16) < 1e-6  # type: ignore[attr-defined]  # outward: positive
    np.testing.assert_array_equal(np.unique(mesh.visual.vertex_colors[:, 2]), [0, 200])  # type: ignore[attr-defined]


def test_glb_has_y_up_and_looks_along_minus_z() -> None:
    corners = frustum(np.array([[10.0, 0, 5], [0, 10, 5], [0, 0, 1]]), (10, 10), np.eye(4), 1.0)
    content = scene_glb(
        {"cloud": (POINTS, COLOURS)}, {"body": box((0, 0, 3), 1, RED)}, {"camera": (corners, BLUE)}
    )
    scene = load(content, "glb")
    assert set(scene.geometry) == {"cloud", "body", "camera"}  # type: ignore[attr-defined]
    cloud = scene.geometry["cloud"].vertices  # type: ignore[attr-defined]
    np.testing.assert_allclose(cloud, POINTS * (1, -1, -1), atol=1e-6)
    body = scene.geometry["body"]  # type: ignore[attr-defined]
    np.testing.assert_allclose(body.vertices.mean(0), (0, 0, -3), atol=1e-6)
    assert body.volume > 0  # still faces outward: a rotation, no reflection
    low, high = scene.geometry["camera"].bounds  # type: ignore[attr-defined]
    np.testing.assert_allclose([low, high], [(-0.5, -0.5, -1), (0.5, 0.5, 0)], atol=0.02)


def test_same_content_gives_the_same_bytes() -> None:
    first, second = (scene_glb({"c": (POINTS, COLOURS)}, {}, {}) for _ in range(2))
    assert first == second
