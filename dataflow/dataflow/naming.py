"""How a model's name becomes its table's: `OrderItem` → `order_items`, `Category` → `categories`."""

from __future__ import annotations

import re

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+|\d+")
_IRREGULAR = {
    "child": "children",
    "datum": "data",
    "foot": "feet",
    "goose": "geese",
    "man": "men",
    "mouse": "mice",
    "person": "people",
    "tooth": "teeth",
    "woman": "women",
}
_UNCHANGED = {
    "equipment",
    "feedback",
    "information",
    "metadata",
    "money",
    "news",
    "series",
    "species",
}


def snake_case(name: str) -> str:
    return "_".join(word.lower() for word in _WORDS.findall(name))


def plural(word: str) -> str:
    """The English plural of a snake_case name: of its last word."""
    head, underscore, last = word.rpartition("_")
    return head + underscore + _plural(last)


def _plural(word: str) -> str:
    if word in _UNCHANGED:
        return word
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        return word[:-1] + "ies"
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    return word + "s"
