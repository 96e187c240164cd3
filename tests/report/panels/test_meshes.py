"""Meshes land where the camera says, the nearest in front."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dune_bench.report.panels.meshes import Mesh, from_above, over_image, vertex_normals

K = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
SIZE = (48, 64)
RED, BLUE = np.array([200, 0, 0], np.uint8), np.array([0, 0, 200], np.uint8)


def box(centre: tuple[float, float, float], half: float, colour: NDArray[np.uint8]) -> Mesh:
    """A closed cube, faces outward."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]
    return Mesh(corners * half + centre, np.array(faces), colour)


def test_cube_covers_its_silhouette_and_nothing_else() -> None:
    picture = over_image([box((0.5, -0.3, 4), 0.5, RED)], K, np.full((*SIZE, 3), 100, np.uint8), opacity=1)
    changed = (picture != 100).any(2)
    x, y = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    # The front face is nearest, so it is the whole silhouette but for the back's inner side.
    inside = (x > 32 + 60 * 0 / 3.5 + 1) & (x < 32 + 60 * 1 / 3.5 - 1)
    inside &= (y > 24 - 60 * 0.8 / 3.5 + 1) & (y < 24 + 60 * 0.2 / 3.5 - 1)
    assert changed[inside].all()
    outside = (
        (x < 31) | (x > 32 + 60 / 3.5 + 1) | (y < 24 - 60 * 0.8 / 3.5 - 1) | (y > 24 + 60 * 0.2 / 3.5 + 1)
    )
    assert not changed[outside].any()


def test_nearer_mesh_hides_the_farther_whatever_their_order() -> None:
    near, far = box((0, 0, 3), 0.4, RED), box((0, 0, 6), 0.4, BLUE)
    blank = np.zeros((*SIZE, 3), np.uint8)
    one, other = over_image([near, far], K, blank), over_image([far, near], K, blank)
    np.testing.assert_array_equal(one, other)
    assert one[24, 32, 0] > 50
    assert one[..., 2].max() == 0


def test_no_mesh_leaves_the_image_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    np.testing.assert_array_equal(over_image([], K, image), image)


def test_from_above_ahead_is_up_and_right_is_right() -> None:
    limits = np.array([[-2.0, 2], [0, 8]])
    right, ahead = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])
    picture, cover = from_above([box((1, 0, 6), 0.5, RED)], right, ahead, limits, (80, 40))
    rows, columns = np.nonzero(cover > 0)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (15, 24, 25, 34)
    assert (picture[0, 0] == 255).all()


def test_of_two_on_top_of_each_other_the_upper_one_shows_from_above() -> None:
    limits = np.array([[-2.0, 2], [0, 8]])
    stack = [box((0, 1, 4), 0.5, BLUE), box((0, -1, 4), 0.5, RED)]  # y is down
    picture, _ = from_above(stack, np.array([1.0, 0, 0]), np.array([0, 0, 1.0]), limits, (80, 40))
    assert picture[40, 20, 0] > 50
    assert picture[40, 20, 2] == 0


def test_normals_point_outward_and_free_vertices_have_none() -> None:
    cube = box((0, 0, 0), 1, RED)
    vertices = np.vstack([cube.vertices, [[9, 9, 9]]])
    normals = vertex_normals(vertices, cube.faces)
    assert ((normals[:8] * cube.vertices).sum(1) > 0.9).all()
    np.testing.assert_allclose(np.linalg.norm(normals[:8], axis=1), 1)
    np.testing.assert_array_equal(normals[8], 0)
