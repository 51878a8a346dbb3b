"""What can be wrong with a plan as a whole."""

from __future__ import annotations

from nexus.errors import RegistrationError
from nexus_workflows.errors import InvalidConnection
from nexus_workflows.plan import Plan, Planned


def check_single(nodes: tuple[Planned, ...]) -> None:
    """Refuse what two nodes bring to one input, in a plan in which both do."""
    for node in nodes:
        for each in node.brought:
            if len(each.edges) > 1:
                first, second = (nodes[edge.source].id for edge in each.edges[:2])
                raise InvalidConnection(
                    f"Node '{node.id}': '{first}' and '{second}' both bring '{each.input}'.",
                    remedy="Bring them to two inputs, or join them in a MergeNode.",
                )


def check_reachable(plan: Plan) -> None:
    """Refuse a node that comes after two ways of one switch, of which a run takes one."""
    behind: list[dict[int, str]] = []
    for node in plan.nodes:
        ways: dict[int, str] = {}
        for edges in () if node.conditions.joins else node.conditions.groups:
            if len(edges) > 1:
                continue
            edge = edges[0]
            here = dict(behind[edge.source])
            switch = plan.switches.get(edge.source)
            if switch is not None and edge.output and edge.output[0] in switch.gives.routes:
                here[edge.source] = edge.output[0]
            for number, way in here.items():
                if ways.setdefault(number, way) != way:
                    raise RegistrationError(
                        f"Node '{node.id}' can never run: it comes after both '{ways[number]}' and"
                        f" '{way}' of '{plan.nodes[number].id}'.",
                        remedy="Join ways in a MergeNode.",
                    )
        behind.append(ways)
