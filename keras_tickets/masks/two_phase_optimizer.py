"""Two optimizers for two phases of one `fit`.

`trainable` cannot be toggled while a model trains: JAX raises, TensorFlow goes on
with the old set. So both phases' variables are trainable all the time, and a gate,
an optimizer variable, says whose optimizer moves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_tickets._util.registry import PACKAGE, config_read


@keras.saving.register_keras_serializable(package=PACKAGE, name="Split")
class TwoPhaseOptimizer(keras.optimizers.Optimizer):
    """Moves scores while a ticket is searched for, and everything else afterwards.

    A phase that is not on moves nothing: neither its variables nor the slots and the
    step count of its optimizer, so learning-rate schedules and Adam's corrections
    start when it does. Both optimizers are computed in each step.

    Args:
        scores: Moves the scores.
        weights: Moves everything else; `learning_rate` is its.
        chosen: The variables that are scores.
        name: Name of the optimizer.
    """

    def __init__(
        self,
        scores: keras.optimizers.Optimizer,
        weights: keras.optimizers.Optimizer,
        chosen: Sequence[keras.Variable] = (),
        name: str = "split",
    ) -> None:
        super().__init__(learning_rate=0.0, name=name)
        self.searching = self.add_variable((), dtype="float32", name="searching")
        self.scores = scores
        self.weights = weights
        # Not the variables: Keras would take them for the optimizer's own.
        self._chosen = frozenset(id(variable) for variable in chosen)

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables, those of the two optimizers included."""
        own = super().variables
        return [*own, *self.scores.variables, *self.weights.variables]

    @property
    def learning_rate(self) -> Any:
        """The learning rate of what moves the weights, for callbacks that change it."""
        return self.weights.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.weights.learning_rate = value

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Build each optimizer for its own variables."""
        super().build(variables)
        for optimizer, scores in ((self.scores, True), (self.weights, False)):
            optimizer.build([v for v in variables if self._is_score(v) == scores])

    def apply(
        self,
        grads: Sequence[Any],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Take the step of the phase that is on."""
        variables = list(trainable_variables or self._trainable_variables)
        if not self.built:
            self.build(variables)
        pairs = list(zip(grads, variables, strict=True))
        searching = ops.convert_to_tensor(self.searching.value) > 0
        scores = [(g, v) for g, v in pairs if self._is_score(v)]
        weights = [(g, v) for g, v in pairs if not self._is_score(v)]
        _step_if(searching, self.scores, scores)
        _step_if(ops.logical_not(searching), self.weights, weights)
        self._iterations.assign_add(1)

    def _is_score(self, variable: keras.Variable) -> bool:
        return id(variable) in self._chosen

    def get_config(self) -> dict[str, Any]:
        """Return both optimizers; which variables are scores, a ticket knows."""
        return {
            "scores": keras.saving.serialize_keras_object(self.scores),
            "weights": keras.saving.serialize_keras_object(self.weights),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None) -> TwoPhaseOptimizer:
        """Rebuild the optimizer from `get_config()`."""
        revive = keras.saving.deserialize_keras_object
        with config_read(cls.__name__, config):
            parts = {
                key: revive(config[key], custom_objects)
                for key in ("scores", "weights")
            }
            return cls(**parts, name=config["name"])


def _step_if(
    on: Any,
    optimizer: keras.optimizers.Optimizer,
    pairs: Sequence[tuple[Any, keras.Variable]],
) -> None:
    """Take a step and, unless `on`, take it back.

    By value, not by `cond`: control flow fails under `tf.distribute`.
    """
    moved = [*(variable for _, variable in pairs), *optimizer.variables]
    before = [ops.copy(variable.value) for variable in moved]
    optimizer.apply([g for g, _ in pairs], [v for _, v in pairs])
    for variable, old in zip(moved, before, strict=True):
        variable.assign(ops.where(on, variable.value, old))
