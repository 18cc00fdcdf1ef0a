"""Everyday objects: the 80 that GenEval asks for and 80 of our own.

Source: UniRL (arXiv 2505.23380) 3.2 has 160 objects: COCO's 80 classes, here under GenEval's names
and in its order, and 80 more.
Departs: the paper's other 80 are not published; ours can be counted, drawn and coloured, and none
is another name or a kind of one of the 80 classes.
"""

from unified_rl.core.errors import ConfigError, nearest
from unified_rl.prompting.wordings import WORDINGS
from unified_rl.prompting.world import Thing, World

COCO = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat"),
    *("dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack"),
    *("umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball"),
    *("kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket"),
    *("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair"),
    *("couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop"),
    *("computer mouse", "tv remote", "computer keyboard", "cell phone", "microwave", "oven"),
    *("toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)

OWN = (
    *("lamp", "candle", "mirror", "pillow", "ladder", "bucket", "broom", "basket", "teapot"),
    *("frying pan", "rolling pin", "whisk", "lantern", "hammer", "screwdriver", "wrench", "axe"),
    *(
        "shovel",
        "rake",
        "wheelbarrow",
        "paintbrush",
        "flashlight",
        "padlock",
        "corkscrew",
        "pencil",
    ),
    *("envelope", "stapler", "ruler", "globe", "calculator", "guitar", "piano", "violin"),
    *("drum", "trumpet", "saxophone", "hat", "mitten", "sock", "boot", "belt", "scarf"),
    *("jacket", "dress", "sunglasses", "necklace", "crown", "camera", "telescope"),
    *("microscope", "headphones", "microphone", "radio", "strawberry", "lemon", "watermelon"),
    *("cherry", "pumpkin", "mushroom", "tomato", "egg", "croissant", "pretzel", "helicopter"),
    *("rocket", "tractor", "sled", "submarine", "rabbit", "turtle", "frog", "butterfly"),
    *("snail", "tent", "hammock", "mailbox", "bathtub", "trophy", "windmill", "barrel"),
)

COLORS = (
    *("red", "orange", "yellow", "green", "blue"),
    *("purple", "pink", "brown", "black", "white"),
)
COUNTS = (2, 3, 4)
RELATIONS = (("left of", "right of"), ("above", "below"))
OPENERS = ("a photo of",)

_IRREGULAR = {
    "person": "people",
    "knife": "knives",
    "scarf": "scarves",
    "computer mouse": "computer mice",
    "tomato": "tomatoes",
    "sheep": "sheep",
}
_UNITS = {
    "scissors": "pair",
    "skis": "pair",
    "sunglasses": "pair",
    "headphones": "pair",
    "broccoli": "head",
}
_COLORLESS = ("person",)


def object_names() -> tuple[str, ...]:
    """All 160, COCO's first."""
    return (*COCO, *OWN)


def everyday_world(wording: str = "table") -> World:
    """The world of the 160 objects.

    Args:
        wording: "table" or "released"; see `wordings`.

    Raises:
        ConfigError: another wording.
    """
    if wording not in WORDINGS:
        raise ConfigError(f"wording={wording!r} does not exist; {nearest(wording, WORDINGS)}")
    return World(
        tuple(map(_thing, object_names())), COLORS, COUNTS, RELATIONS, OPENERS, WORDINGS[wording]
    )


def _thing(name: str) -> Thing:
    unit = _UNITS.get(name)
    plural = name if unit else _IRREGULAR.get(name) or _plural(name)
    return Thing(name, plural, takes_color=name not in _COLORLESS, unit=unit)


def _plural(name: str) -> str:
    if name.endswith(("s", "x", "ch", "sh")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"
