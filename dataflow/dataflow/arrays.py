"""Lists that a database keeps as arrays of its own."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping

from dataflow.fields import Field, Kind
from nexus.errors import RegistrationError

_ELEMENTS = {str: Kind.TEXT, int: Kind.INTEGER, float: Kind.FLOAT, bool: Kind.BOOLEAN}


def with_arrays(owner: str, fields: Mapping[str, Field]) -> dict[str, Field]:
    """The fields, of which the lists of str, int, float or bool are arrays. Other lists stay JSON, as those
    do whose elements may be null. Raises RegistrationError where no field is such a list."""
    changed = {name: dataclasses.replace(field, elements=_elements(field)) for name, field in fields.items()}
    if not any(field.elements for field in changed.values()):
        raise RegistrationError(
            f"{owner}: 'use_native_arrays' changes nothing: no field is a list of str, int, float or bool.",
            remedy="Leave it out, or say what the lists hold, as in list[str].",
        )
    return changed


def _elements(field: Field) -> Kind | None:
    if typing.get_origin(field.annotation) is not list:
        return None
    return _ELEMENTS.get(typing.get_args(field.annotation)[0])
