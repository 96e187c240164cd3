"""The catalogue: no training model among the held-out ones, no foreign thing in a class."""

from pathlib import Path

import numpy as np
import pytest

from dune_bench.errors import UnavailableError
from tests.tools.minirooms_catalogue import synthetic_models
from tools.minirooms.attribution import attribution
from tools.minirooms.catalogue import Picker, load_catalogue, parse_properties, split_pools, use_of
from tools.minirooms.classes import class_of

_TEXT = """
id=x
id#1=Scopia#chair9
name#1=Chair
category#1=Living room
model#1=/scopia/chair9/chair9.obj
width#1=45.0
depth#1=50.5
height#1=90
dropOnTopElevation#1=-1
creator#1=Scopia
id#2=Scopia#woman
name#2=Female
category#2=Characters
model#2=/x.obj
width#2=50
depth#2=50
height#2=170
id#3=Scopia#saloon_table
name#3=Coffee table
category#3=Living room
model#3=/x.obj
width#3=50
depth#3=50
height#3=40
"""


def test_people_and_broken_models_are_not_used() -> None:
    (chair,) = parse_properties("Scopia", _TEXT)
    assert chair.id == "Scopia#chair9"
    assert chair.label == "seat"
    assert chair.size == pytest.approx((0.45, 0.505, 0.9))
    assert chair.top is None
    assert chair.path == "scopia/chair9/chair9.obj"


@pytest.mark.parametrize(
    ("name", "category", "wanted"),
    [
        ("Armchair", "Living room", "seat"),
        ("TV stand", "Living room", "storage"),
        ("TV", "Living room", "appliance"),
        ("Bedside table", "Bedroom", "storage"),
        ("Table fan", "Miscellaneous", "appliance"),
        ("Double window", "Doors and windows", "opening"),
        ("Glass door cabinet", "Kitchen", "storage"),
        ("Street lamp", "Lights", None),
        ("Male", "Characters", None),
        ("Truck", "Vehicles", None),
        ("Toilet brush", "Bathroom", None),
        ("Garage door", "Doors and windows", None),
    ],
)
def test_names_do_not_fall_in_the_wrong_class(name: str, category: str, wanted: str | None) -> None:
    assert class_of(name, category) == wanted


@pytest.mark.parametrize("seed", range(4))
def test_held_out_models_are_not_in_training(seed: int) -> None:
    models = synthetic_models(6)
    pools = split_pools(models, seed)
    for label in pools.train:
        train, held = set(pools.train[label]), set(pools.held_out[label])
        assert not train & held
        assert train | held == {model for model in models if model.label == label}
        assert len(held) >= 0.3 * len(train | held)
        # Each kind of use is in both pools, or test rooms would lack it.
        assert {use_of(m) for m in train} == {use_of(m) for m in held}


def test_pools_do_not_depend_on_the_order_of_the_file() -> None:
    models = synthetic_models()
    assert split_pools(models, 1) == split_pools(models[::-1], 1)
    assert split_pools(models, 1) != split_pools(models, 2)


def test_training_rooms_do_not_pick_held_out_models() -> None:
    pools = split_pools(synthetic_models(), 0)
    held = {m.id for members in pools.held_out.values() for m in members}
    for split, share in (("train", 0.0), ("test", 0.5)):
        picker = Picker(pools, split, np.random.default_rng(0))
        picked = [picker.pick("seat") for _ in range(40)]
        assert sum(m is not None and m.id in held for m in picked) == share * 40


def test_pick_does_not_ignore_its_limits() -> None:
    picker = Picker(split_pools(synthetic_models(), 0), "test", np.random.default_rng(0))
    assert picker.pick("bed", limit=1.0) is None
    assert picker.pick("seat", ("ceiling",)) is None


def test_too_small_class_is_not_split() -> None:
    with pytest.raises(UnavailableError, match="class seat"):
        split_pools([m for m in synthetic_models() if m.label != "seat"], 0)


def test_missing_package_does_not_leave_the_user_alone(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"apt-get download sweethome3d-furniture"):
        load_catalogue(tmp_path)


def test_used_models_are_not_left_without_credit() -> None:
    models = synthetic_models()
    text = attribution("minirooms@1", models, {models[0].id, models[7].id})
    assert "chair0" in text
    assert "A. Maker" in text
    assert "CC BY 3.0" in text
    assert models[3].id.split("#")[1] not in text
