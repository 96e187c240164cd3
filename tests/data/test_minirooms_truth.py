"""The shipped MiniRooms: is its ground truth right, and is it the set its card describes?

Oracles are geometric facts that no part of the loader uses: the floor is z = 0, walls are vertical
planes, and a wall point seen from one view must lie on that wall in every other view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.minirooms.index import Room
from dune_bench.data.minirooms.shards import read_depth, read_image, read_objects
from dune_bench.data.samples import HumanSample, RelocScene, SegSample, View
from tests.data.minirooms_fixture import grid

Array = NDArray[np.float64]


@cache
def rooms() -> MiniRooms:
    return MiniRooms("minirooms@1")


def each_room() -> Iterator[tuple[str, Room, list[View]]]:
    """(split, room's facts, its views with the reference first)."""
    for split in rooms().splits:
        for room, scene in zip(rooms().index(split).rooms, rooms().samples(RelocScene, split), strict=True):
            assert isinstance(scene, RelocScene)
            yield split, room, [scene.reference, *scene.queries]


def objects_of(split: str, room: Room, view: int) -> NDArray[np.uint8]:
    size = rooms().index(split).image_size
    return read_objects(rooms().shard(split), f"{room.id}/{room.views[view].id}.objects.png", size)


def project(view: View, points: Array) -> tuple[Array, Array]:
    """World points (N, 3) -> pixels (N, 2) and z (N,)."""
    camera = points @ view.T_cam_world[:3, :3].T + view.T_cam_world[:3, 3]
    return (camera @ view.K.T)[:, :2] / camera[:, 2:], camera[:, 2]


def unproject(view: View, pixels: Array, depth: Array) -> Array:
    """Pixels (N, 2) with z (N,) -> world points (N, 3)."""
    rays = np.c_[pixels, np.ones(len(pixels))] @ np.linalg.inv(view.K).T
    return (rays * depth[:, None] - view.T_cam_world[:3, 3]) @ view.T_cam_world[:3, :3]


def owner_at(objects: NDArray[np.uint8], points: Array, reach: int = 2) -> NDArray[np.int64]:
    """The object around image points (N, 2); -1 unless all pixels within `reach` are the same one."""
    x, y = np.rint(points).astype(int).T
    size = objects.shape[0]
    inside = (np.minimum(x, y) >= reach) & (np.maximum(x, y) <= size - reach)
    out = np.full(len(points), -1)
    steps = range(-reach, reach)
    around = np.stack([objects[y[inside] + j, x[inside] + i] for i in steps for j in steps]).astype(int)
    out[inside] = np.where((around == around[0]).all(axis=0), around[0], -1)
    return out


def plane_depth(view: View, pixels: Array, point: Array, normal: Array) -> Array:
    """z at which the rays of pixels meet a world plane."""
    centre = -view.T_cam_world[:3, :3].T @ view.T_cam_world[:3, 3]
    rays = np.c_[pixels, np.ones(len(pixels))] @ np.linalg.inv(view.K).T @ view.T_cam_world[:3, :3]
    return np.asarray(((point - centre) @ normal) / (rays @ normal))


def inverse_depth_at(view: View, pixels: Array) -> Array:
    """Bilinear inverse depth (exact on planes) at image points (N, 2)."""
    side, size = view.depth.shape[0], view.image.size[0]
    u = np.clip(pixels * side / size - 0.5, 0, side - 1.001)
    x, y = np.floor(u).astype(int).T
    fx, fy = (u - np.floor(u)).T
    inverse = 1.0 / view.depth.astype(np.float64)
    top = inverse[y, x] * (1 - fx) + inverse[y, x + 1] * fx
    return np.asarray(top * (1 - fy) + (inverse[y + 1, x] * (1 - fx) + inverse[y + 1, x + 1] * fx) * fy)


def test_shards_are_those_of_the_card() -> None:
    assert rooms().verify() == []


def test_set_is_as_large_as_promised() -> None:
    counts = {split: len(rooms().index(split).rooms) for split in rooms().splits}
    assert counts == {"train": 70, "test": 30}
    assert sum(rooms().card.splits[split].size for split in counts) <= 45_000_000
    ids = [room.id for split in counts for room in rooms().index(split).rooms]
    assert len(set(ids)) == len(ids), "a room is in both splits"
    for split in counts:
        for room in rooms().index(split).rooms:
            assert len(room.views) == 6
            assert 2 <= len(room.people) <= 4
        assert rooms().index(split).image_size == (448, 448)
    assert 12 <= len(rooms().classes) <= 16


def test_every_view_sees_four_classes_and_is_neither_black_nor_white() -> None:
    for split in rooms().splits:
        for sample in rooms().samples(SegSample, split):
            assert isinstance(sample, SegSample)
            share = np.bincount(sample.labels.ravel(), minlength=256)[:255] / sample.labels.size
            assert (share > 0.002).sum() >= 4, sample.id
            grey = sample.image.read().mean(axis=2)
            assert 25 < np.median(grey) < 235, sample.id
            assert max((grey > 252).mean(), (grey < 3).mean()) < 0.3, sample.id


def test_every_class_occurs_in_both_splits() -> None:
    for split in rooms().splits:
        found = set()
        for sample in rooms().samples(SegSample, split):
            assert isinstance(sample, SegSample)
            found |= set(np.unique(sample.labels).tolist())
        assert found - {255} == set(range(len(rooms().classes))), split


def test_a_third_of_the_test_models_is_new_in_every_class() -> None:
    index, models = rooms().index("test"), {}
    trained = {o.model for room in rooms().index("train").rooms for o in room.objects}
    for room in index.rooms:
        for item in room.objects:
            assert item.seen == (item.model in trained) or "#" not in item.model
            if "#" in item.model:
                models.setdefault(index.label_of(item), {})[item.model] = item.seen
    assert len(models) >= 8
    for label, seen in models.items():
        assert 1 - np.mean(list(seen.values())) >= 0.3, rooms().classes[label]


def test_queries_are_spread_over_difficulty() -> None:
    views = [v for split in rooms().splits for room in rooms().index(split).rooms for v in room.views[1:]]
    for view in views:
        assert 4.9 <= view.rotation_deg <= 60.1
        assert 0.19 <= view.baseline_m <= 2.51
        assert view.covisible_with_reference >= 0.15
    bins = Counter(view.bin for view in views)
    assert len(bins) == 3
    assert min(bins.values()) >= 0.25 * len(views)


def test_light_differs_between_views_of_a_room() -> None:
    for _, _, views in each_room():
        gains = np.array([view.exposure for view in views])
        assert (gains[:, 0] > 0.55).all()
        assert (gains[:, 0] < 1.75).all()
        assert (np.abs(gains[:, 1:] - 1) < 0.21).all()
        assert np.ptp(gains[:, 0]) > 0.05


def test_stated_rotation_and_baseline_are_those_of_the_cameras() -> None:
    for _, room, views in each_room():
        for facts, view in zip(room.views, views, strict=True):
            R = view.T_cam_world[:3, :3]
            np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-9)
            assert np.linalg.det(R) == pytest.approx(1.0)
            relative = view.T_cam_world @ np.linalg.inv(views[0].T_cam_world)
            cosine = np.clip((np.trace(relative[:3, :3]) - 1) / 2, -1, 1)
            assert np.degrees(np.arccos(cosine)) == pytest.approx(facts.rotation_deg, abs=0.01)
            centres = [-v.T_cam_world[:3, :3].T @ v.T_cam_world[:3, 3] for v in (views[0], view)]
            assert np.linalg.norm(centres[1] - centres[0]) == pytest.approx(facts.baseline_m, abs=1e-4)
            assert 54.9 <= facts.fov_deg <= 75.1
            focal = view.image.size[1] / 2 / np.tan(np.radians(facts.fov_deg) / 2)
            np.testing.assert_allclose(view.K, [[focal, 0, 224], [0, focal, 224], [0, 0, 1]], atol=1e-6)


def test_floor_depth_is_exact() -> None:
    """< 1 mm below 5 m, < 3 mm at 10 m, against the ray's intersection with z = 0.

    A leaf or leg thinner than a pixel may stand before the floor at a depth ray: a few points are nearer,
    none is farther.
    """
    excess = []
    for split, room, views in each_room():
        floor = {o.index for o in room.objects if o.label == rooms().classes.index("floor")}
        points = grid(views[0].depth.shape[0], views[0].image.size[0])
        for number, view in enumerate(views):
            on_floor = np.isin(owner_at(objects_of(split, room, number), points), list(floor))
            exact = plane_depth(view, points[on_floor], np.zeros(3), np.array([0.0, 0.0, 1.0]))
            error = view.depth.reshape(-1)[on_floor] - exact
            excess.append(error / np.where(exact < 5, 1e-3, 3e-3))
    error = np.concatenate(excess)
    assert len(error) > 100_000
    assert error.max() < 1
    assert (error < -1).mean() < 5e-4


def flat_residuals(points: Array) -> tuple[Array, Array] | None:
    """Distances (N,) to the plane of most points, and its normal; None for a mere strip of points."""
    kept = points
    for _ in range(3):
        centre = np.median(kept, axis=0)
        _, scale, axes = np.linalg.svd(kept - centre, full_matrices=False)
        away = (points - centre) @ axes[2]
        kept = points[np.abs(away) < 0.03]
    return None if scale[1] / np.sqrt(len(kept)) < 0.1 else (np.abs(away), axes[2])


def test_walls_are_flat_and_upright() -> None:
    """Above the skirting; a leaf thinner than a pixel may hide a wall at a depth ray (1 % is left out)."""
    residuals, tilts = [], []
    for split, room, views in each_room():
        walls = [o.index for o in room.objects if o.model == "wall"]
        points = grid(views[0].depth.shape[0], views[0].image.size[0])
        for number, view in enumerate(views):
            owner = owner_at(objects_of(split, room, number), points)
            world = unproject(view, points, view.depth.reshape(-1).astype(np.float64))
            for wall in walls:
                here = world[(owner == wall) & (world[:, 2] > 0.15)]
                found = flat_residuals(here) if len(here) >= 400 else None
                if found is not None:
                    residuals.append(np.quantile(found[0], 0.99))
                    tilts.append(np.degrees(np.arcsin(abs(found[1][2]))))
    assert len(residuals) > 100
    assert max(residuals) < 4e-3
    assert np.median(tilts) < 0.05
    assert max(tilts) < 0.5


def test_wall_and_floor_points_land_on_themselves_in_other_views() -> None:
    """Across views, there and back within 0.5 px: same flat object, so no test of depth decides."""
    errors = []
    for split, room, views in each_room():
        flat = [o.index for o in room.objects if o.model in ("wall", "floor", "ceiling")]
        maps = [objects_of(split, room, k) for k in range(len(views))]
        points = grid(views[0].depth.shape[0], views[0].image.size[0])[::7]
        for a in range(len(views)):
            z = views[a].depth.reshape(-1)[::7].astype(np.float64)
            owner = owner_at(maps[a], points)
            for b in range(len(views)):
                if a == b:
                    continue
                where, ahead = project(views[b], unproject(views[a], points, z))
                same = (ahead > 0.1) & np.isin(owner, flat)
                # All four depths that are interpolated there must belong to the surface.
                same[same] &= owner_at(maps[b], where[same], reach=4) == owner[same]
                back, _ = project(
                    views[a], unproject(views[b], where[same], 1 / inverse_depth_at(views[b], where[same]))
                )
                errors.append(np.linalg.norm(back - points[same], axis=1))
    error = np.concatenate(errors)
    assert len(error) > 100_000
    assert (error < 0.5).mean() > 0.9999
    assert np.median(error) < 0.05


def test_stated_covisibility_is_that_of_the_depth_maps() -> None:
    """Share of the reference's pixels that a query sees, from the two depth maps alone."""
    differences = []
    for _, room, views in each_room():
        points = grid(views[0].depth.shape[0], views[0].image.size[0])
        world = unproject(views[0], points, views[0].depth.reshape(-1).astype(np.float64))
        for facts, view in list(zip(room.views, views, strict=True))[1:]:
            where, z = project(view, world)
            inside = (z > 0.05) & (where > 0).all(axis=1) & (where < view.image.size[0]).all(axis=1)
            cell = np.floor(where[inside] * view.depth.shape[0] / view.image.size[0]).astype(int)
            seen = view.depth[cell[:, 1], cell[:, 0]]
            share = (np.abs(seen - z[inside]) < 0.02 + 0.03 * z[inside]).sum() / len(points)
            differences.append(share - facts.covisible_with_reference)
    assert np.abs(differences).max() < 0.06
    assert abs(np.mean(differences)) < 0.02


def test_visible_key_points_lie_on_their_person() -> None:
    hits, seen = 0, 0
    for split in rooms().splits:
        facts = {room.id: room for room in rooms().index(split).rooms}
        for sample in rooms().samples(HumanSample, split):
            assert isinstance(sample, HumanSample)
            room, view = facts[sample.group], sample.id.rsplit("/", 1)[1]
            number = [v.id for v in room.views].index(view)
            objects = objects_of(split, room, number)
            for person in sample.people:
                index = next(o.index for o in room.objects if o.model == person.id.rsplit("/", 1)[1])
                x, y = np.floor(person.keypoints_2d[person.visible]).astype(int).T
                hits += int((objects[y, x] == index).sum())
                seen += len(x)
    assert seen > 500
    assert hits / seen >= 0.99


def test_people_stand_on_the_floor_and_have_human_sizes() -> None:
    for _, room, _ in each_room():
        for person in room.people:
            assert abs(person.T_world_body[2, 3]) < 0.02
            np.testing.assert_allclose(person.T_world_body[2, :3], [0, 0, 1], atol=1e-9)
            assert 0.9 < person.height_m < 2.05
            joints = dict(zip(rooms().keypoint_names, person.keypoints_world, strict=True))
            assert 0.02 < joints["left_ankle"][2] < 0.35
            assert joints["nose"][2] > joints["left_hip"][2]
            shin = np.linalg.norm(joints["left_knee"] - joints["left_ankle"])
            assert 0.19 < shin / person.height_m < 0.31


def test_labels_sit_on_the_edges_of_the_image() -> None:
    """The image's contrast across label borders is strongest where the labels put them (within 1 px)."""
    reach = range(-4, 5)
    contrast = np.zeros((2, len(reach)))
    for split, room, views in each_room():
        for number in range(0, len(views), 2):
            objects = objects_of(split, room, number)
            image = read_image(
                rooms().shard(split), f"{room.id}/{room.views[number].id}.jpg", objects.shape
            ).mean(axis=2)
            for axis in (0, 1):
                border = np.diff(objects.astype(int), axis=axis) != 0
                jump = np.abs(np.diff(image, axis=axis))
                for k, shift in enumerate(reach):
                    contrast[axis, k] += np.roll(jump, -shift, axis=axis)[border].sum()
    for axis in (0, 1):
        best = reach[int(contrast[axis].argmax())]
        assert abs(best) <= 1
        assert contrast[axis, 4] > 1.8 * contrast[axis, [0, -1]].mean()


def test_depth_covers_every_pixel() -> None:
    for split in rooms().splits:
        for room in rooms().index(split).rooms:
            for view in room.views:
                depth = read_depth(rooms().shard(split), f"{room.id}/{view.id}.depth")
                assert depth.shape == (224, 224)
                assert (depth > 0.2).all(), f"{room.id}/{view.id}"
                assert (depth < 20).all(), f"{room.id}/{view.id}"
