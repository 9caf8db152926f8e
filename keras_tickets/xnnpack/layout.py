"""XNNPACK's decision: which values of a part are laid out channel by channel.

Operators that can be inside a sparse network and pass values to each other become one
cluster, which changes its layout as a whole. What spoils it: an operator that reads
from one that stays outside, a value that is also read outside, too few zeros. What is
*not* looked at is a value that only others read: the operator that computes it then
works in neither layout, and the network is wrong.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from keras_tickets.xnnpack.partition import (
    Part,
    Step,
)
from keras_tickets.xnnpack.predicates import is_pointwise
from keras_tickets.xnnpack.rules import (
    THRESHOLD,
    Role,
    Standing,
    standing,
)


@dataclasses.dataclass
class State:
    """A step, as XNNPACK goes along.

    Args:
        step: The step.
        standing: What the table says of it.
        role: What is left of what it can be.
        leader: The number of the step that its cluster is called after.
        spoilt: Whether it, or its cluster, keeps the layout.
        causes: The numbers of the steps that spoil it; of itself if it is a value
            from outside.
    """

    step: Step
    standing: Standing
    role: Role
    leader: int
    spoilt: bool = False
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
    """What XNNPACK decides about a part in sparse mode.

    Args:
        part: The part.
        threshold: The fraction of zeros that a cluster must exceed; lower than
            XNNPACK's to learn what more zeros would lead to.

    Attributes:
        states: What became of each step.
        has_exit: Whether something in the part leads back to pixel by pixel.
        clusters: The clusters that are not spoilt, by leader.
        planar: The values that are laid out channel by channel.
    """

    def __init__(self, part: Part, threshold: Fraction = THRESHOLD) -> None:
        self.part = part
        self.states = [
            State(step, found, found.role, number)
            for number, step in enumerate(part.steps)
            for found in [standing(part.graph, step)]
        ]
        self._producer = {
            value: number
            for number, step in enumerate(part.steps)
            for value in step.outputs
        }
        self.clusters: dict[int, Cluster] = {}
        self.planar: set[int] = set()
        self.has_exit = self._gather()
        if self.has_exit:
            self._spoil()
            self.clusters = self._count(threshold)
            self.planar = {
                value
                for state in self._inside()
                if self.clusters[state.leader].switched
                for value in self._read(state.step)
            }

    def misread(self, state: State) -> bool:
        """Whether XNNPACK counts zeros among whole numbers as if they were float.

        It expects none where a cluster was found anywhere.
        """
        graph, step = self.part.graph, state.step
        if not self.has_exit or not is_pointwise(graph, step):
            return False
        return not graph.constant(step.inputs[1]).dtype.startswith("float")

    def _read(self, step: Step) -> list[int]:
        """The values that a step reads and that are computed."""
        graph = self.part.graph
        return [i for i in step.inputs if i < 0 or not graph.is_constant(i)]

    def _gather(self) -> bool:
        """Joins steps to clusters; returns whether there is one with an exit."""
        changed = False
        for number, state in enumerate(self.states):
            if Role.EXIT in state.role:
                changed |= self._join(number)
        found = changed
        while changed:
            changed = False
            for number, state in enumerate(self.states):
                if not state.spoilt and state.role & (Role.INSIDE | Role.EXIT):
                    changed |= self._join(number)
        return found

    def _join(self, number: int) -> bool:
        """Joins a step with those that it reads from; returns if something changed."""
        state, changed = self.states[number], False
        for value in self._read(state.step):
            if value in self.part.outer:
                state.spoilt = True
                state.causes.add(self._producer.get(value, number))
                continue
            source = self.states[self._producer[value]]
            if source.spoilt or not source.role & (Role.INSIDE | Role.ENTRY):
                state.spoilt = True
                state.causes |= source.causes or {self._producer[value]}
                continue
            source.role &= ~Role.EXIT
            if source.leader != state.leader:
                source.leader = state.leader = max(source.leader, state.leader)
                changed = True
        return changed

    def _spoil(self) -> None:
        """Spoils clusters of which a step is, or a value is read outside."""
        for state in self.states:
            if state.spoilt:
                self._spoil_cluster(state.leader, state.causes)
        reads: dict[int, int] = {}
        for state in self._inside():
            for value in self._read(state.step):
                reads[value] = reads.get(value, 0) + 1
        for state in self._inside():
            for value in self._read(state.step):
                others = self._readers(value)
                if reads[value] != len(others) + (value in self.part.leaving):
                    outside = {n for n in others if not self._is_inside(self.states[n])}
                    self._spoil_cluster(
                        state.leader, outside or {self._producer[value]}
                    )

    def _spoil_cluster(self, leader: int, causes: set[int]) -> None:
        self.states[leader].spoilt = True
        self.states[leader].causes |= causes

    def _readers(self, value: int) -> list[int]:
        return [n for n, s in enumerate(self.states) if value in s.step.inputs]

    def _is_inside(self, state: State) -> bool:
        whole = not self.states[state.leader].spoilt
        return whole and bool(state.role & (Role.INSIDE | Role.EXIT))

    def _inside(self) -> list[State]:
        """The steps whose inputs would change their layout."""
        return [state for state in self.states if self._is_inside(state)]

    def _count(self, threshold: Fraction) -> dict[int, Cluster]:
        """Counts the zeros of each cluster."""
        counts: dict[int, list[int]] = {}
        for state in self.states:
            if self.states[state.leader].spoilt:
                continue
            number = counts.setdefault(state.leader, [0, 0])
            if is_pointwise(self.part.graph, state.step):
                kernel = self.part.graph.constant(state.step.inputs[1])
                number[0] += kernel.values.size
                number[1] += kernel.zeros
        return {
            leader: Cluster(weights, zeros, zeros > threshold * weights)
            for leader, (weights, zeros) in counts.items()
        }
