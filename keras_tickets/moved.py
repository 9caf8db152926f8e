"""Where modules of version 0.1.0 are now; their old paths go with version 0.3.

An old path still imports: what is asked of it comes from the new place, with a
warning that names it.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from typing import Any

_PACKAGE = "keras_tickets"

# Old path -> new ones, below `keras_tickets`.
MOVED: dict[str, tuple[str, ...]] = {
    "_keras": ("backend.keras_private",),
    "accounting": ("reports.cost",),
    "allocation": ("recipe.allocation",),
    "architecture": ("ticket.architecture",),
    "capture": ("masks.dense_gradient",),
    "channels": ("channels.batchnorm_scales",),
    "checks": ("_util.checks",),
    "companion": ("masks.auxiliary",),
    "contestants": ("reports.contestants",),
    "convert.child": ("convert.converter_process",),
    "convert.conversation": ("_util.process",),
    "convert.formats": ("runtime.formats",),
    "convert.gaps": ("onnx.deltas",),
    "convert.interface": (
        "tflite.interface",
        "_util.model_file",
    ),
    "convert.isolated": ("runtime.isolated",),
    "convert.judging": ("convert.tolerances",),
    "convert.litert": ("convert.to_tflite",),
    "convert.mixed_precision": ("convert.float32",),
    "convert.onnx": ("convert.to_onnx",),
    "convert.onnx_file": ("onnx.file",),
    "convert.onnx_find": ("onnx.decoding",),
    "convert.onnx_forms": ("onnx.encodings",),
    "convert.onnx_graph": ("onnx.graph",),
    "convert.onnx_repair": ("onnx.fixes",),
    "convert.onnx_scatter": ("onnx.scatter",),
    "convert.pipeline": ("convert.exporting",),
    "convert.quiet": ("_util.quiet",),
    "convert.reference": ("_util.size_bound",),
    "convert.runtimes": ("runtime.interpreters",),
    "convert.sampling": ("convert.samples", "backend.random_inputs"),
    "convert.stages": ("_util.progress",),
    "convert.tensor": ("_util.file_tensor",),
    "convert.tflite_encode": ("convert.tflite_encoding",),
    "convert.tflite_file": ("tflite.file",),
    "convert.tflite_schema": ("tflite.schema",),
    "convert.tflite_sparsity": ("tflite.sparsity",),
    "convert.tflite_tensor": ("tflite.tensor",),
    "convert.verify": ("convert.equivalence",),
    "data": ("scores.data",),
    "extras": ("_util.extras",),
    "files": ("_util.files",),
    "granules": ("recipe.groups",),
    "growth": ("masks.regrowth",),
    "layered": ("backend.rebuilding",),
    "learned": ("masks.learned_masks",),
    "masked": ("masks.masked_layer",),
    "masking": ("masks.masked_call",),
    "mobile.benchmark": ("mobile.benchmarking",),
    "mobile.block_log": ("runtime.arm64.block_log",),
    "mobile.compare": ("mobile.comparing",),
    "mobile.comparison_table": ("mobile.comparing",),
    "mobile.counts": ("_util.checks",),
    "mobile.diagnose": ("mobile.diagnosing",),
    "mobile.draft": ("mobile.probe_model",),
    "mobile.eligible": ("mobile.eligibility",),
    "mobile.instructions": ("mobile.instruction_counting",),
    "mobile.prepare": ("mobile.preparing",),
    "mobile.prepare.build": ("mobile.preparing.building",),
    "mobile.prepare.graph": ("mobile.preparing.network_graph",),
    "mobile.prepare.measure": ("mobile.preparing.exactness",),
    "mobile.prepare.obstacles": (
        "xnnpack.obstacles",
        "mobile.preparing.preparation_plan",
    ),
    "mobile.prepare.plan": ("mobile.preparing.preparation_plan",),
    "mobile.prepare.printed": ("mobile.preparing.preparation_plan",),
    "mobile.prepare.resize": ("mobile.preparing.resizing",),
    "mobile.prepare.rewrites": ("mobile.preparing.rewrites",),
    "mobile.prepare.rewrites.affine": ("mobile.preparing.rewrites.scale_shift",),
    "mobile.prepare.rewrites.gates": ("mobile.preparing.rewrites.gates",),
    "mobile.prepare.rewrites.grey": ("mobile.preparing.rewrites.input_channels",),
    "mobile.prepare.rewrites.padding": ("mobile.preparing.rewrites.kernel_padding",),
    "mobile.prepare.rewrites.pointwise": ("mobile.preparing.rewrites.pointwise",),
    "mobile.prepare.rewrites.pooled": ("mobile.preparing.rewrites.pooling",),
    "mobile.prepare.rewrites.separable": ("mobile.preparing.rewrites.separable",),
    "mobile.prepare.rewrites.series": ("mobile.preparing.rewrites.conv1d",),
    "mobile.prepare.site": ("mobile.preparing.match",),
    "mobile.prepare.table": ("mobile.preparing.rewrites",),
    "mobile.probe": ("mobile.sparse_kernels",),
    "mobile.runners": ("runtime",),
    "mobile.runners.adb": ("runtime.android.adb",),
    "mobile.runners.android": ("runtime.android.phone_target",),
    "mobile.runners.arm64": ("runtime.arm64.emulated_target",),
    "mobile.runners.arm64_count": ("runtime.arm64.instruction_counter",),
    "mobile.runners.arm64_probe": ("runtime.arm64.kernel_counter",),
    "mobile.runners.base": ("runtime.target",),
    "mobile.runners.benchmark_model": ("runtime.android.benchmark_model",),
    "mobile.runners.benchmark_output": ("runtime.android.benchmark_output",),
    "mobile.runners.folders": ("runtime.target",),
    "mobile.runners.host": ("runtime.host",),
    "mobile.runners.inputs": ("runtime.inputs",),
    "mobile.runners.phone": ("runtime.android.phone",),
    "mobile.runners.timing": ("runtime.target",),
    "mobile.runners.wasm": ("runtime.wasm",),
    "mobile.verify": ("mobile.verifying",),
    "optimizers": ("masks.optimizer_slots",),
    "parts": ("ticket.parts",),
    "presets": ("pruners.presets",),
    "prunable": ("kernels",),
    "pruners.edge_popup": ("pruners.learned.edge_popup",),
    "pruners.espn": ("pruners.learned.espn",),
    "pruners.fisher": ("pruners.with_data",),
    "pruners.gem_miner": ("pruners.learned.gem_miner",),
    "pruners.grasp": ("pruners.with_data",),
    "pruners.magnitude": ("pruners.one_shot",),
    "pruners.mined": ("pruners.learned.base",),
    "pruners.random": (
        "pruners.one_shot",
        "pruners.dynamic_variants",
    ),
    "pruners.rigl": ("pruners.dynamic_variants",),
    "pruners.set": ("pruners.dynamic_variants",),
    "pruners.snfs": ("pruners.dynamic_variants",),
    "pruners.snip": ("pruners.with_data",),
    "pruners.str": ("pruners.learned.str",),
    "pruners.supermask": ("pruners.learned.supermask",),
    "pruners.synflow": ("pruners.one_shot",),
    "ranking": ("recipe.ranking",),
    "registry": ("_util.registry",),
    "report": ("reports.summarizing",),
    "sanity": ("reports.challenging",),
    "schedules": ("recipe.schedules",),
    "selection": ("recipe.selection",),
    "shrink": ("channels.shrinking",),
    "shrink.channels": ("channels.channel_state",),
    "shrink.demand": ("channels.liveness",),
    "shrink.linear": ("channels.mixing_layers",),
    "shrink.parts": ("channels.edits",),
    "shrink.plan": ("channels.removal_plan",),
    "shrink.rebuild": ("channels.smaller_model",),
    "shrink.rules": ("channels.layer_rules",),
    "shrink.table": ("channels.removal_plan",),
    "shrink.trace": ("channels.tracing",),
    "shrink.wires": ("channels.coupling",),
    "signature": ("_util.signature",),
    "snapshot": ("masks.snapshot",),
    "split": ("masks.two_phase_optimizer",),
    "strip": ("masks.stripping",),
    "structure": ("recipe.structures",),
    "tables": ("_util.tables",),
    "ticket": (
        "ticket.ticket",
        "pruners.wrapping",
    ),
    "ticket_file": ("ticket.saved_file",),
    "uses": ("kernels.usage",),
    "xnnpack.delegate": ("xnnpack.partition",),
    "xnnpack.diagnose": ("xnnpack.analysis",),
    "xnnpack.graph": ("tflite.graph",),
    "xnnpack.judge": ("xnnpack.prediction",),
    "xnnpack.looks": ("xnnpack.predicates",),
    "xnnpack.padding": ("xnnpack.explicit_padding",),
    "xnnpack.source": ("xnnpack.analysis",),
    "xnnpack.storage": ("xnnpack.support",),
}


class _OldPath(types.ModuleType):
    """Stands where a module was, and fetches names from where they are."""

    def __init__(self, old: str) -> None:
        super().__init__(f"{_PACKAGE}.{old}", f"See {_named(old)}.")
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by tools that look at every module
            raise AttributeError(name)
        return fetch(self.__name__.removeprefix(f"{_PACKAGE}."), name)


# Names that are others by now.
_RENAMED = {
    "Companion": "AuxiliaryVariable",
    "Granules": "WeightGroups",
    "Mined": "LearnedMaskPruner",
    "Split": "TwoPhaseOptimizer",
}


def _named(old: str) -> str:
    return " and ".join(f"{_PACKAGE}.{new}" for new in MOVED[old])


def fetch(old: str, name: str) -> Any:
    """Return what the module `old` had under `name`, and warn of its new place.

    Raises:
        AttributeError: If none of its new places has it.
    """
    for new in MOVED[old]:
        module = importlib.import_module(f"{_PACKAGE}.{new}")
        now = name if hasattr(module, name) else _RENAMED.get(name, name)
        if hasattr(module, now):
            warnings.warn(
                f"{_PACKAGE}.{old} has moved: import {now!r} from "
                f"{module.__name__}. The old path goes with version 0.3.",
                FutureWarning,
                stacklevel=3,
            )
            return getattr(module, now)
    raise AttributeError(
        f"module '{_PACKAGE}.{old}' has moved to {_named(old)}, and has no {name!r}"
    )


def keep_old_paths() -> None:
    """Make the old paths importable.

    A path that is a package by now keeps its own names and fetches only those that are
    missing.
    """
    for old in MOVED:
        now = sys.modules.get(f"{_PACKAGE}.{old}")
        if now is None:
            sys.modules[f"{_PACKAGE}.{old}"] = _OldPath(old)
        else:
            now.__dict__.setdefault(
                "__getattr__", lambda name, old=old: fetch(old, name)
            )
