"""What a model offers: its operations, which are also its nodes in workflows."""

from dataflow.nodes.catalogue import model_operations

__all__ = ["model_operations"]
