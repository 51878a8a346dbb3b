"""What a model offers: its operations, which are also its nodes in workflows; and nodes of one's own."""

from dataflow.nodes.catalogue import model_operations
from dataflow.nodes.own import BaseDataFlowNode

__all__ = ["BaseDataFlowNode", "model_operations"]
