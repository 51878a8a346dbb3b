"""Models and databases."""

from dataflow.app import DataFlow

__all__ = ["DataFlow"]
