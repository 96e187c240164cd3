"""The people of the shipped MiniRooms come back from their parameters alone (needs anny, see test_people)."""

from __future__ import annotations

import numpy as np

from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.minirooms.shards import read_objects
from dune_bench.data.samples import HumanSample
from tests.tools.test_people import pytestmark as needs_anny

pytestmark = needs_anny


def test_bodies_and_key_points_come_back_from_the_parameters() -> None:
    """Vertices from `body` give the stored key points to 0.1 mm, and fall on the person's own pixels."""
    from tools.minirooms.people import BodyFactory

    factory, data = BodyFactory(), MiniRooms("minirooms@1")
    rooms = {room.id: room for room in data.index("test").rooms}
    inside, people = [], 0
    for sample in data.samples(HumanSample, "test"):
        assert isinstance(sample, HumanSample)
        room = rooms[sample.group]
        view = sample.id.rsplit("/", 1)[1]
        objects = read_objects(data.shard("test"), f"{room.id}/{view}.objects.png", sample.image.size)
        for person in sample.people:
            if person.visible_fraction < 0.9:
                continue
            vertices = factory.vertices_of(person.body)
            joints = factory._regressor @ vertices
            T = person.T_cam_body
            np.testing.assert_allclose(joints @ T[:3, :3].T + T[:3, 3], person.keypoints_3d, atol=1e-4)
            points = vertices @ T[:3, :3].T + T[:3, 3]
            pixels = np.floor((points @ sample.K.T)[:, :2] / points[:, 2:]).astype(int)
            keep = ((pixels >= 0) & (pixels < sample.image.size[0])).all(axis=1)
            index = next(o.index for o in room.objects if o.model == person.id.rsplit("/", 1)[1])
            inside.append((objects[pixels[keep, 1], pixels[keep, 0]] == index).mean())
            people += 1
    assert people >= 5
    assert np.mean(inside) > 0.9
