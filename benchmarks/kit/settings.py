"""What one call of the command measures, and how thoroughly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """`databases` are URLs by kind. `quick` looks for crashes and wrong answers; its figures say nothing.
    `seconds` is how long a round of load lasts."""

    databases: Mapping[str, str]
    folder: Path
    quick: bool = False
    profile: bool = False

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 7

    @property
    def seconds(self) -> float:
        return 0.05 if self.quick else 0.35

    def times(self, usual: int) -> int:
        """How often something is done in a round."""
        return max(1, usual // 50) if self.quick else usual
