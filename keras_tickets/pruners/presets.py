"""Published hyper-parameters of mined tickets, by architecture and sparsity.

Read in the configuration files that Sreenivasan et al., "Rare Gems: Finding Lottery
Tickets at Initialization", 2022, published for CIFAR-10. Their networks have BatchNorm
without scale and shift, and no biases: see `Preset.wrap(affine=False)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_tickets._util import arguments
from keras_tickets._util.registry import spelling
from keras_tickets.backend import array_of, keras_private, numbers
from keras_tickets.backend.copying import copy_state, pair, rebuild
from keras_tickets.pruners import GemMiner
from keras_tickets.pruners.wrapping import wrap
from keras_tickets.ticket.ticket import Ticket


@dataclass(frozen=True)
class Architecture:
    """What a network must look like for its numbers to mean anything.

    Args:
        title: What people call it.
        kernels: The least and the most prunable kernels it may have.
        weights: The least and the most prunable weights it may have.
        batch_size: Samples of one step.
    """

    title: str
    kernels: tuple[int, int]
    weights: tuple[int, int]
    batch_size: int = 128


ARCHITECTURES = {
    "resnet20": Architecture("ResNet-20", (20, 22), (265_000, 280_000)),
    "vgg16": Architecture("VGG-16", (14, 16), (14_700_000, 15_300_000)),
    "mobilenet_v2": Architecture("MobileNetV2", (34, 54), (2_100_000, 2_500_000)),
    "wrn_28_2": Architecture("WRN-28-2", (26, 29), (1_440_000, 1_500_000)),
}


@dataclass(frozen=True)
class Preset:
    """How one ticket was mined and trained.

    Args:
        architecture: The name of the architecture.
        kept: The fraction of the weights that is kept.
        penalty: Weight of the regularisation of the scores.
        every: Epochs from one freeze to the next.
        mining: Epochs of mining; as many train the weights.
        scores: The class of the optimizer of the scores, and its learning rate.
        rate: The learning rate of the weights, a tenth after each of `drops`.
        drops: Epochs of training the weights.
        revive: See `GemMiner`.
    """

    architecture: str
    kept: float
    penalty: float
    every: int
    mining: int
    scores: tuple[str, float]
    rate: float
    drops: tuple[int, int]
    revive: bool = True

    @property
    def epochs(self) -> int:
        """Epochs of the whole run: mining, and then training."""
        return 2 * self.mining

    @property
    def batch_size(self) -> int:
        """Samples of one step."""
        return ARCHITECTURES[self.architecture].batch_size

    def pruner(self, **arguments: Any) -> GemMiner:
        """Return the pruner; `arguments` are others of `GemMiner`."""
        return GemMiner(
            sparsity=1 - self.kept,
            every=self.every,
            until=0.5,
            penalty=self.penalty,
            revive=self.revive,
            optimizer=_optimizer(*self.scores),
            **arguments,
        )

    def optimizer(self, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """Return what trains the weights: SGD whose rate drops twice."""
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            [epoch * steps_per_epoch for epoch in self.drops],
            [self.rate, self.rate / 10, self.rate / 100],
        )
        return keras.optimizers.SGD(rate, momentum=0.9, weight_decay=1e-4)

    def wrap(self, model: keras.Model, affine: bool = True, **others: Any) -> Ticket:
        """Wrap a model of this architecture.

        Args:
            model: The model, untrained.
            affine: Whether BatchNorm has a scale and a shift, as in `model`. Theirs has
                none: with `False` a copy of the model is wrapped whose BatchNorms have
                `scale=False` and `center=False`.
            **others: Other arguments of `GemMiner`.

        Raises:
            ValueError: If it is another architecture; or, for `affine=False`, if a
                scale or shift is other than one and zero, or made in code.
        """
        if not arguments.switch("affine", affine):
            model = _non_affine(model)
        ticket = wrap(model, self.pruner(**others))
        expected = ARCHITECTURES[self.architecture]
        kernels = len(ticket.kernels)
        weights = ticket.mask_set.count().total
        if not _within(kernels, expected.kernels) or not _within(
            weights, expected.weights
        ):
            raise ValueError(
                f"The preset {self.architecture!r} is for {expected.title}, with "
                f"{_range(expected.kernels)} prunable kernels of "
                f"{_range(expected.weights)} weights. {model.name!r} has {kernels} of "
                f"{weights:,}. For another network choose penalty= and every= of "
                "kt.GemMiner yourself."
            )
        return ticket


def _run(
    every: int, mining: int, scores: tuple[str, float], rate: float, *drops: int
) -> dict[str, Any]:
    return {
        "every": every,
        "mining": mining,
        "scores": scores,
        "rate": rate,
        "drops": drops,
    }


_RESNET = _run(5, 150, ("SGD", 0.1), 0.01, 80, 120)
_VGG = _run(5, 200, ("Adam", 0.01), 0.05, 100, 150)
_MOBILE = _run(5, 300, ("SGD", 0.1), 0.01, 150, 250)
_WIDE = _run(10, 150, ("SGD", 0.5), 0.01, 80, 120)

PRESETS: list[Preset] = [
    Preset("resnet20", 0.0059, 1e-4, **_RESNET),
    Preset("resnet20", 0.0144, 1e-4, **_RESNET),
    Preset("resnet20", 0.0372, 3e-5, **_RESNET),
    Preset("resnet20", 0.2, 1e-5, **_RESNET, revive=False),
    *(Preset("vgg16", kept, 1e-6, **_VGG) for kept in (0.005, 0.014, 0.025, 0.05)),
    Preset("mobilenet_v2", 0.014, 1.5e-5, **_MOBILE),
    Preset("mobilenet_v2", 0.05, 7e-6, **_MOBILE),
    Preset("mobilenet_v2", 0.2, 3e-6, **_MOBILE),
    *(Preset("wrn_28_2", kept, 1e-5, **_WIDE) for kept in (0.014, 0.023, 0.055, 0.2)),
]


def get(architecture: str, sparsity: float | None = None) -> Preset:
    """Return the published preset for an architecture and a sparsity.

    Args:
        architecture: `"resnet20"`, `"vgg16"`, `"mobilenet_v2"` or `"wrn_28_2"`.
        sparsity: Fraction of zeros; one that was published.

    Raises:
        ValueError: If nothing was published for it, or no sparsity is given; says
            which there are.

    Example:
    >>> preset = get("resnet20", sparsity=0.9856)
    >>> preset.epochs, preset.batch_size, preset.pruner().penalty
    (300, 128, 0.0001)
    """
    rows = [
        preset
        for preset in PRESETS
        if spelling(preset.architecture) == spelling(str(architecture))
    ]
    if not rows:
        raise ValueError(
            f"There is no preset for {architecture!r}. Expected one of "
            f"{[*ARCHITECTURES]}."
        )
    published = [round(1 - preset.kept, 6) for preset in rows]
    if sparsity is None:
        raise ValueError(
            f"The presets of {architecture!r} differ by sparsity. Expected sparsity= "
            f"to be one of {published}."
        )
    sparsity = arguments.number(
        "sparsity is the fraction of zeros and", sparsity, "[0, 1)"
    )
    for preset in rows:
        if math.isclose(1 - preset.kept, sparsity, abs_tol=1e-6):
            return preset
    raise ValueError(
        f"Nothing was published for {architecture!r} at sparsity {sparsity:g}. "
        f"Expected one of {published}; or choose "
        "penalty= and every= of kt.GemMiner yourself."
    )


def _non_affine(model: keras.Model) -> keras.Model:
    """Return a copy of a model whose BatchNorms have neither scale nor shift."""
    twin = rebuild(model, _without_scale_and_shift)
    pairs = list(
        zip(keras_private.sublayers(model), keras_private.sublayers(twin), strict=True)
    )
    norms = [p for p in pairs if isinstance(p[0], keras.layers.BatchNormalization)]
    for source, copy in norms:
        if copy.scale or copy.center:
            raise ValueError(
                f"BatchNorm {source.name!r} of {model.name!r} is made in code, so its "
                "scale and shift cannot be left out by the config. Make it with "
                "scale=False and center=False, and wrap the model with affine=True."
            )
        trained = (source.scale and (numbers(source.gamma) != 1).any()) or (
            source.center and (numbers(source.beta) != 0).any()
        )
        if trained:
            raise ValueError(
                f"BatchNorm {source.name!r} of {model.name!r} has a scale other than "
                "one, or a shift other than zero, which affine=False would drop. Pass "
                "an untrained model, or use affine=True."
            )
    theirs = {id(source) for source, _ in norms}
    sources, copies = zip(*pairs, strict=True)
    copy_state(pair(sources, copies, theirs), theirs)
    for source, copy in norms:
        held = {v.name: v for v in keras_private.own_variables(source)}
        for variable in keras_private.own_variables(copy):
            variable.assign(array_of(held[variable.name]))
    return twin


def _without_scale_and_shift(config: Any) -> Any:
    """Return a config whose BatchNorms have neither."""
    if isinstance(config, list | tuple):
        return type(config)(map(_without_scale_and_shift, config))
    if not isinstance(config, Mapping):
        return config
    config = {key: _without_scale_and_shift(value) for key, value in config.items()}
    if config.get("class_name") == "BatchNormalization":
        config["config"] |= {"scale": False, "center": False}
    return config


def _optimizer(name: str, rate: float) -> keras.optimizers.Optimizer:
    if name == "SGD":
        return keras.optimizers.SGD(rate, momentum=0.9)
    return keras.optimizers.Adam(rate)


def _within(value: int, bounds: tuple[int, int]) -> bool:
    return bounds[0] <= value <= bounds[1]


def _range(bounds: tuple[int, int]) -> str:
    return f"{bounds[0]:,} to {bounds[1]:,}"
