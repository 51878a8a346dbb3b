"""What a model offers: its operations, which are also its nodes in workflows."""

from dataflow.nodes.crud import crud_operations

__all__ = ["crud_operations"]
