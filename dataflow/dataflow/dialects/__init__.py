"""One module for each database; nothing outside this folder knows a database by name."""

from dataflow.dialects.base import Codec, Connection, Dialect
from dataflow.dialects.urls import dialect_for

__all__ = ["Codec", "Connection", "Dialect", "dialect_for"]
