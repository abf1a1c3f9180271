"""Question types of the world: their phrasings, and the number of answers that chance chooses among."""

from __future__ import annotations

__all__ = ["ABSENT", "CHANCE", "FIRST_TYPES", "PHRASES", "PROMPTS", "TYPES"]

#: Answer to a question about what is not in the video.
ABSENT = "not there"

#: Type → phrasings. The first twelve types are those of the first world.
PHRASES: dict[str, tuple[str, ...]] = {
    "color": (
        "what color is the {shape}",
        "which color does the {shape} have",
        "the {shape} is what color",
        "tell me the color of the {shape}",
    ),
    "shape": (
        "what shape is the {color} object",
        "which shape does the {color} object have",
        "what is the {color} object",
        "what kind of object is {color}",
    ),
    "direction": (
        "which way does the {color} object move",
        "what direction does the {color} object go",
        "how does the {color} object move",
        "where is the {color} object moving to",
    ),
    "count": (
        "how many objects are there",
        "what is the number of objects",
        "count the objects in the video",
        "how many objects can you see in total",
    ),
    "order": (
        "which came first {color} or {other}",
        "was {color} or {other} there first",
        "which appeared earlier {color} or {other}",
        "tell me which of {color} and {other} was seen first",
    ),
    "needle": (
        "what color was the flash",
        "which color did the flash have",
        "tell me the color of the flash",
        "there was a flash of what color",
    ),
    "last": (
        "what appeared last",
        "which object came last",
        "what is the newest object",
        "tell me the last object that appeared",
    ),
    "exist": (
        "is there a {color} {shape}",
        "can you see a {color} {shape}",
        "do you see a {color} {shape} in the video",
        "was a {color} {shape} there",
    ),
    "change": ("what changed", "what was it that changed", "which kind of change did happen", "tell me what changed"),
    "where": (
        "where is the {color} object at the end",
        "at the end where is the {color} object",
        "what is the final position of the {color} object",
        "where can you see the {color} object last",
    ),
    "when": (
        "when did the flash happen",
        "when was the flash",
        "in what part of the video was the flash",
        "when can you see the flash",
    ),
    "flash": (
        "was there a flash",
        "did a flash happen",
        "can you see a flash",
        "is there any flash in the video",
    ),
    "flashes": (
        "how many flashes were there",
        "how many times did it flash",
        "how often did a flash happen",
        "count the flashes in the video",
    ),
    "nth": (
        "what color was the {nth} flash",
        "which color did the {nth} flash have",
        "tell me the color of the {nth} flash",
    ),
    "digit": (
        "what number is on the sign",
        "which digit is on the sign",
        "read the sign",
        "what is written on the sign",
    ),
    "size": (
        "what size is the {color} object",
        "is the {color} object big or small",
        "how big is the {color} object",
    ),
    "moved_first": (
        "which object moved first",
        "what moved first",
        "which object began to move first",
        "what was the first to move",
    ),
    "fastest": (
        "which object moved fastest",
        "what moves fastest",
        "which is the quickest object",
        "tell me the fastest object",
    ),
    "beside": (
        "what was {side} the {color} {shape} when it flashed",
        "when it flashed what was {side} the {color} {shape}",
        "during the flash what was {side} the {color} {shape}",
    ),
    "between": (
        "what happened {span}",
        "{span} what happened",
        "tell me what happened {span}",
    ),
    "left": (
        "which object disappeared",
        "what left",
        "what is gone at the end",
        "which object is not there at the end",
    ),
    "was": (
        "what color was the {shape} {moment}",
        "which color did the {shape} have {moment}",
        "{moment} what color was the {shape}",
    ),
}
#: Questions about what is not there are phrased as their own type would phrase them.
TYPES = (*PHRASES, "absent")
FIRST_TYPES = TYPES[:12]
#: Right by uniform guessing among a type's answers (of those that its questions can have).
CHANCE = {
    "color": 1 / 8,
    "shape": 1 / 5,
    "direction": 1 / 5,
    "count": 1 / 6,
    "order": 1 / 2,
    "needle": 1 / 8,
    "last": 1 / 40,
    "exist": 1 / 2,
    "change": 1 / 3,
    "where": 1 / 4,
    "when": 1 / 3,
    "flash": 1 / 2,
    "flashes": 1 / 4,
    "nth": 1 / 8,
    "digit": 1 / 10,
    "size": 1 / 2,
    "moved_first": 1 / 8,
    "fastest": 1 / 8,
    "beside": 1 / 41,
    "between": 1 / 25,
    "left": 1 / 9,
    "was": 1 / 8,
    "absent": 0.0,
}
#: Short training prompts, never examined: they make the model say of each object what questions ask of few.
PROMPTS = ("caption", "changed", "before", "measure", "near", "glyph", "gone", "earlier", "faster", "position")
