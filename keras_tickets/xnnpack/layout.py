"""XNNPACK's decision: which values of a partition are laid out in NCHW.

NCHW holds an image channel by channel, as sparse kernels want it; a `.tflite` holds it
in NHWC, pixel by pixel. Operators that can be inside a sparse network and pass values
to each other become one cluster, which changes its layout as a whole. It is
disqualified by an operator that reads from one that stays outside, and by a value that
is also read outside; with too few zeros it stays as it is. What is *not* looked at is a
value that only others read: the operator that computes it then works in neither layout,
and the network is wrong.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from keras_tickets.xnnpack.partition import Partition, Step
from keras_tickets.xnnpack.predicates import is_pointwise
from keras_tickets.xnnpack.rules import THRESHOLD, Eligibility, Role, eligibility


@dataclasses.dataclass
class State:
    """A step, as XNNPACK goes along.

    Args:
        step: The step.
        eligibility: What the table says of it.
        role: What is left of what it can be.
        leader: The number of the step that its cluster is called after.
        disqualified: Whether it, or its cluster, keeps the layout.
        causes: The numbers of the steps that disqualify it; of itself if it is a
            value from outside.
    """

    step: Step
    eligibility: Eligibility
    role: Role
    leader: int
    disqualified: bool = False
    causes: set[int] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Steps that change their layout together.

    Args:
        weights: How many weights its 1x1 convolutions have.
        zeros: How many of them are zero.
        switched: Whether XNNPACK changes the layout.
    """

    weights: int
    zeros: int
    switched: bool


class Layout:
    """What XNNPACK decides about a partition in sparse mode.

    Args:
        partition: The partition.
        threshold: The fraction of zeros that a cluster must exceed; lower than
            XNNPACK's to learn what more zeros would lead to.

    Attributes:
        states: What became of each step.
        has_exit: Whether something in the partition leads back to NHWC.
        clusters: The clusters that are not disqualified, by leader.
        nchw: The values that are laid out in NCHW.
    """

    def __init__(self, partition: Partition, threshold: Fraction = THRESHOLD) -> None:
        self.partition = partition
        self.states = [
            State(step, found, found.role, number)
            for number, step in enumerate(partition.steps)
            for found in [eligibility(partition.graph, step)]
        ]
        self._producer = {
            value: number
            for number, step in enumerate(partition.steps)
            for value in step.outputs
        }
        self.clusters: dict[int, Cluster] = {}
        self.nchw: set[int] = set()
        self.has_exit = self._gather()
        if self.has_exit:
            self._disqualify()
            self.clusters = self._count(threshold)
            self.nchw = {
                value
                for state in self._inside()
                if self.clusters[state.leader].switched
                for value in self._read(state.step)
            }

    def misread(self, state: State) -> bool:
        """Return whether XNNPACK counts zeros among integers as if they were float.

        It expects none where a cluster was found anywhere.
        """
        graph, step = self.partition.graph, state.step
        if not self.has_exit or not is_pointwise(graph, step):
            return False
        return not graph.constant(step.inputs[1]).dtype.startswith("float")

    def _read(self, step: Step) -> list[int]:
        """Return the values that a step reads and that are computed."""
        graph = self.partition.graph
        return [i for i in step.inputs if i < 0 or not graph.is_constant(i)]

    def _gather(self) -> bool:
        """Join steps to clusters; return whether there is one with an exit."""
        changed = False
        for number, state in enumerate(self.states):
            if Role.EXIT in state.role:
                changed |= self._join(number)
        found = changed
        while changed:
            changed = False
            for number, state in enumerate(self.states):
                if not state.disqualified and state.role & (Role.INSIDE | Role.EXIT):
                    changed |= self._join(number)
        return found

    def _join(self, number: int) -> bool:
        """Join a step with those that it reads from; return whether that is new."""
        state, changed = self.states[number], False
        for value in self._read(state.step):
            if value in self.partition.outer:
                state.disqualified = True
                state.causes.add(self._producer.get(value, number))
                continue
            source = self.states[self._producer[value]]
            if source.disqualified or not source.role & (Role.INSIDE | Role.ENTRY):
                state.disqualified = True
                state.causes |= source.causes or {self._producer[value]}
                continue
            source.role &= ~Role.EXIT
            if source.leader != state.leader:
                source.leader = state.leader = max(source.leader, state.leader)
                changed = True
        return changed

    def _disqualify(self) -> None:
        """Disqualify clusters of which a step is, or a value is read outside."""
        for state in self.states:
            if state.disqualified:
                self._disqualify_cluster(state.leader, state.causes)
        reads: dict[int, int] = {}
        for state in self._inside():
            for value in self._read(state.step):
                reads[value] = reads.get(value, 0) + 1
        for state in self._inside():
            for value in self._read(state.step):
                others = self._readers(value)
                if reads[value] != len(others) + (value in self.partition.leaving):
                    outside = {n for n in others if not self._is_inside(self.states[n])}
                    self._disqualify_cluster(
                        state.leader, outside or {self._producer[value]}
                    )

    def _disqualify_cluster(self, leader: int, causes: set[int]) -> None:
        self.states[leader].disqualified = True
        self.states[leader].causes |= causes

    def _readers(self, value: int) -> list[int]:
        return [n for n, s in enumerate(self.states) if value in s.step.inputs]

    def _is_inside(self, state: State) -> bool:
        qualified = not self.states[state.leader].disqualified
        return qualified and bool(state.role & (Role.INSIDE | Role.EXIT))

    def _inside(self) -> list[State]:
        """Return the steps whose inputs would change their layout."""
        return [state for state in self.states if self._is_inside(state)]

    def _count(self, threshold: Fraction) -> dict[int, Cluster]:
        """Count the zeros of each cluster."""
        counts: dict[int, list[int]] = {}
        for state in self.states:
            if self.states[state.leader].disqualified:
                continue
            number = counts.setdefault(state.leader, [0, 0])
            if is_pointwise(self.partition.graph, state.step):
                kernel = self.partition.graph.constant(state.step.inputs[1])
                number[0] += kernel.values.size
                number[1] += kernel.zeros
        return {
            leader: Cluster(weights, zeros, zeros > threshold * weights)
            for leader, (weights, zeros) in counts.items()
        }
