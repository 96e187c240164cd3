"""Meshes, surfaces and exposure: what must not be misread."""

import numpy as np
import pytest

from dune_bench.errors import TaskError
from tools.minirooms import textures
from tools.minirooms.catalogue import Model
from tools.minirooms.meshes import Material, _parts, parse_mtl, parse_obj, srgb_to_linear
from tools.minirooms.relief import relief_of
from tools.minirooms.render import base_exposure, develop, keep_exposure, tonemap

_MODEL = Model("Scopia#box", "Table", "table", "Scopia", "me", "box.obj", (2.0, 1.0, 0.5), 0.0, 0.5)
_OBJ = """
v -1 0 -3
v 1 0 -3
v 1 0 3
v -1 0 3
v -1 4 -3
v 1 4 -3
v 1 4 3
v -1 4 3
vt 0 0
vt 1 1
usemtl wood
f 5 8 7 6
f -8 -7 -6
usemtl glass
f 3 4 8 7
"""
_MTL = """
newmtl wood
Kd 0.5 0.5 0.5
map_Kd oak.jpg
newmtl glass
Kd 1 1 1
d 0.1
"""


def test_model_does_not_lie_on_its_side() -> None:
    (part,) = _parts(_MODEL, parse_obj(_OBJ), parse_mtl(_MTL), {})
    low, high = part.vertices.min(0), part.vertices.max(0)
    np.testing.assert_allclose(low, [-1, -0.5, 0], atol=1e-12)
    np.testing.assert_allclose(high, [1, 0.5, 0.5], atol=1e-12)
    # The file's top (y = 4) is the model's top; the file's front (+z) is the model's front (-y).
    top = part.vertices[part.vertices[:, 2] > 0.49]
    assert len(top) == 4
    assert part.vertices[part.faces].shape == (3, 3, 3)


def test_clear_glass_is_not_a_surface() -> None:
    parts = _parts(_MODEL, parse_obj(_OBJ), {"glass": Material(opacity=0.1)}, {})
    assert sum(len(part.faces) for part in parts) == 3
    parts = _parts(_MODEL, parse_obj(_OBJ), {"glass": Material(opacity=1.0)}, {})
    assert sum(len(part.faces) for part in parts) == 5


def test_broken_texture_coordinates_are_not_rendered() -> None:
    text = (
        _OBJ.replace("vt 1 1", "vt nan 1")
        .replace("f 5 8 7 6", "f 5/1 8/2 7/1 6/2")
        .replace("f -8 -7 -6\n", "")
    )
    picture = np.zeros((2, 2, 3), np.float32)
    with pytest.raises(TaskError, match="texture coordinates"):
        _parts(_MODEL, parse_obj(text), parse_mtl(_MTL), {"wood": picture})


def test_zero_normals_do_not_make_black_faces() -> None:
    text = _OBJ.replace("vt 0 0", "vn 0 0 0").replace("f 5 8 7 6", "f 5//1 8//1 7//1 6//1")
    text = text.replace("f -8 -7 -6\n", "")
    (part,) = _parts(_MODEL, parse_obj(text), parse_mtl(_MTL), {})
    assert part.normals is not None
    np.testing.assert_allclose(np.linalg.norm(part.normals, axis=1), 1)
    np.testing.assert_allclose(np.abs(part.normals[:, 2]), 1)


def test_things_do_not_float_over_a_table() -> None:
    relief = relief_of(_parts(_MODEL, parse_obj(_OBJ), parse_mtl(_MTL), {}), _MODEL.size)
    assert relief.flat_height(0.3, 0.1, 0.2) == pytest.approx(0.5)
    assert relief.flat_height(1.5, 0.0, 0.1) is None


def test_colours_are_not_left_in_srgb() -> None:
    assert parse_mtl(_MTL)["wood"].colour[0] == pytest.approx(0.2140, abs=1e-3)
    assert srgb_to_linear(np.array([0.0, 1.0])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("make", [textures.floor_surface, textures.wall_surface, textures.ceiling_surface])
def test_surfaces_are_not_out_of_range(make) -> None:  # type: ignore[no-untyped-def]
    for seed in range(4):
        surface = make(np.random.default_rng(seed))
        assert surface.texture.dtype == np.float32
        assert surface.texture.min() >= 0
        assert surface.texture.max() <= 1
        assert surface.width_m > 0
        assert surface.height_m > 0


def test_tonemap_does_not_burn_out_or_reorder() -> None:
    values = np.linspace(0, 20, 500, dtype=np.float32)
    mapped = tonemap(values)
    assert (np.diff(mapped) >= 0).all()
    assert mapped.max() <= 1
    np.testing.assert_allclose(mapped[values < 0.5], values[values < 0.5])


def test_pictures_are_not_left_dark_or_burnt() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(0.02, 0.3, (40, 40, 3)).astype(np.float32)
    base = base_exposure([image])
    assert base_exposure([image * 8]) == pytest.approx(base / 8, rel=0.01)
    for gain in (0.6, 1.0, 1.7):
        exposure = keep_exposure(image, base, (gain, 1.1, 0.9))
        assert 0.6 <= exposure[0] <= 1.7
        grey = develop(image, base, exposure).mean() / 255
        assert 0.2 < grey < 0.8


def test_white_balance_does_not_move_the_wrong_channel() -> None:
    image = np.full((4, 4, 3), 0.2, np.float32)
    red, green, blue = develop(image, 1.0, (1.0, 1.2, 0.8))[0, 0].astype(int)
    assert red > green > blue
