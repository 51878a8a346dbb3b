"""What is said to programmers in process, as Python warnings."""

from __future__ import annotations

from nexus.warnings import AutoManagedField, warn_caller


class ModelWarning(UserWarning):
    """A declaration that works and is probably not what was meant; its message begins with a VAL-code."""


__all__ = ["AutoManagedField", "ModelWarning", "warn_caller"]
