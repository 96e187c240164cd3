"""The segmentation classes of MiniRooms and which catalogue names belong to them."""

from __future__ import annotations

import re

CLASSES = (
    "wall",
    "floor",
    "ceiling",
    "opening",
    "person",
    "seat",
    "sofa",
    "table",
    "bed",
    "storage",
    "plant",
    "lamp",
    "appliance",
    "decoration",
)
"""Names of labels 0 ... 13; `opening` is a door or a window.  255 is ignored."""

IGNORE = 255
FURNITURE_CLASSES = CLASSES[5:]

INDEX = {name: index for index, name in enumerate(CLASSES)}

PALETTE = (
    (196, 200, 246),
    (52, 158, 212),
    (245, 46, 236),
    (250, 250, 120),
    (36, 62, 220),
    (80, 170, 165),
    (140, 70, 160),
    (128, 240, 76),
    (58, 206, 68),
    (160, 96, 40),
    (20, 110, 40),
    (30, 30, 30),
    (230, 60, 60),
    (255, 160, 40),
)
"""RGB of each class in pictures of labels."""

# First match wins.  Names are those of the English catalogue; a name that fits no line is not used,
# because an object without a class would have to be ignored by every task.
_RULES: tuple[tuple[str, str], ...] = (
    ("", r"elevator|garage|shutter|shower|tennis|football|sleeping|dressing table|changing table"),
    ("", r"unit for|wall|socket|plug|switch|swimming|convertible sofa|stretcher|air mattress"),
    ("appliance", r"\btv\b(?! stand)|table fan|rigged fan|imac|ibook|laptop|coffee (machine|maker|brewer)"),
    ("appliance", r"oven|fridge|refrigerator|washing machine|dryer|microwave|toaster|mixer|blender"),
    ("appliance", r"cooker|stove|printer|water cooler|stereo|speaker|radio|freezer|deep fryer|mp3"),
    ("appliance", r"espresso kettle|dvd player|video projector|screen$|boiler|hood$|bread maker"),
    ("seat", r"armchair|chair|stool|\bbench\b|class seat|puff|ottoman|bank$"),
    ("sofa", r"sofa|couch"),
    ("storage", r"bedside table|tv stand|television cabinet|bookcase|shelves|wardrobe|cupboard|cabinet"),
    ("storage", r"chest$|dresser|drawers|locker|filing"),
    ("lamp", r"\blamp\b|desk lamp|light$|lantern|chandelier|track lights|spotlight"),
    ("table", r"\btable\b|\bdesk\b|desk$|island"),
    ("bed", r"\bbed\b|crib|bunk"),
    ("plant", r"plant\b|cactus|orchids|bamboo|yucca|spathiphyllum|tulips|lily|ficus|bonsai|flowers"),
    ("plant", r"christmas tree|flower box"),
    ("decoration", r"vase|frame |teddy|rocking horse|deer|clock|basketball|guitar|puzzle|wood toy|toy train"),
    ("decoration", r"car model|biplane|doll|candle|bowl|aquarium|pottery|old jar|teapot|chessboard|gift"),
    ("decoration", r"rubik|xylophone|soccer ball|book$|dart game|wine bottle"),
    ("opening", r"door|window"),
)
_COMPILED = tuple((name, re.compile(pattern)) for name, pattern in _RULES)
_INDOOR = {"Living room", "Bedroom", "Kitchen", "Office", "Lights", "Miscellaneous", "Doors and windows"}
_NOT_INDOOR_LIGHTS = re.compile(r"street|park light|lamppost|porch|outdoor|flashlight|camping|stone")
_OUTDOOR_SEATS = re.compile(r"teck chair|rattan|caf. (chair|table)|cafe (chair|table)")


def class_of(name: str, category: str) -> str | None:
    """The class of a catalogue entry by its English name and category, or None if it is not used."""
    lowered = name.lower()
    if category == "Exterior" and not _OUTDOOR_SEATS.search(lowered):
        return None
    if category not in _INDOOR | {"Exterior"} or _NOT_INDOOR_LIGHTS.search(lowered):
        return None
    if category == "Lights" and "wall" in lowered:
        return "lamp"
    if category == "Living room" and lowered == "wall flat tv":
        return "appliance"
    for label, pattern in _COMPILED:
        if pattern.search(lowered):
            if label == "opening" and category != "Doors and windows":
                return None
            return label or None
    return None
