"""Two models, one of which asks which state is changed; the tests copy it to a folder of their own."""

from __future__ import annotations

from pathlib import Path

from dataflow import DataFlow
from nexus import Nexus

db = DataFlow(f"sqlite:///{Path(__file__).parent / 'shop.db'}")


@db.model
class Product:
    name: str
    price: float = 0.0


@db.model
class Careful:
    name: str
    etag: str | None = None
    __tablename__ = "carefuls"
    __dataflow__ = {"require_if_match": True, "versioned": True}


app = Nexus(db)
