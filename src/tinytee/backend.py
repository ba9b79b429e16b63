"""tinytee as an ONNX backend (``onnx.backend.base``), for the official conformance suites.

A model is compiled when it is first run, because tinytee needs weights at compile time and the suites' models pass
theirs as inputs: inputs that an operator needs as constants become initializers with the values of that run.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
from numpy.typing import NDArray
from onnx.backend.base import Backend, BackendRep, namedtupledict

from tinytee.api import compile_graph
from tinytee.errors import UnsupportedModelError
from tinytee.importer import HALVES, UnsupportedNodes, load
from tinytee.ir import reference
from tinytee.ir.graph import Graph
from tinytee.passes import optimize
from tinytee.runtime import Session

Engine = Callable[[Graph, Mapping[str, NDArray]], Mapping[str, NDArray]]
"""Runs a graph on arrays by input name."""

_MEMORY_BYTES = 64 << 20
_HALVES: dict[int, np.dtype] = {kind: onnx.helper.tensor_dtype_to_np_dtype(kind) for kind in HALVES}
"""Types of inputs and outputs that are carried as float32."""


def sealed_engine(graph: Graph, inputs: Mapping[str, NDArray]) -> Mapping[str, NDArray]:
    """Seals the network under a fresh key, and runs it in the process port."""
    key = secrets.token_bytes(32)
    with Session(compile_graph(graph, _MEMORY_BYTES, key), key=key) as session:
        return session.run(inputs)


def import_bound(model: onnx.ModelProto, inputs: Mapping[str, NDArray]) -> tuple[Graph, dict[str, NDArray]]:
    """The model's graph, with the inputs that it needs as constants bound, and the inputs that are left.

    Raises:
        UnsupportedModelError: the model is not supported even so.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    free = dict(inputs)
    needed = [name for name, array in free.items() if not array.size]
    while True:
        changed.graph.initializer.extend(onnx.numpy_helper.from_array(free.pop(name), name) for name in needed)
        try:
            return optimize(load(changed, {name: array.shape for name, array in free.items()})), free
        except UnsupportedNodes as error:
            needed = [name for name in error.bindable if name in free]
            if not needed:
                raise


def _in_float32(value: Any) -> NDArray:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype in _HALVES.values() else array


class TinyteeRep(BackendRep):
    """A model, ready to run."""

    def __init__(self, model: onnx.ModelProto, engine: Engine) -> None:
        self.model = model
        self.engine = engine
        constants = {tensor.name for tensor in model.graph.initializer}
        self.names = [value.name for value in model.graph.input if value.name not in constants]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Arrays in the order of the model's inputs, or by name; returns the outputs in order.

        Raises:
            UnsupportedModelError: the model, or a sequence among the inputs, is not supported.
        """
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        given = dict(inputs) if isinstance(inputs, Mapping) else dict(zip(self.names, inputs, strict=False))
        for name, value in given.items():
            if not isinstance(value, (np.ndarray, np.generic)):
                raise UnsupportedModelError(f"input '{name}' is a {type(value).__name__}; only tensors are supported")
        graph, free = import_bound(self.model, {name: _in_float32(value) for name, value in given.items()})
        outputs = self.engine(graph, free)
        ports = {port.name: port.type.tensor_type.elem_type for port in self.model.graph.output}
        results = (
            outputs[name].astype(_HALVES[kind]) if kind in _HALVES else outputs[name] for name, kind in ports.items()
        )
        return namedtupledict("Outputs", list(ports))(*results)


class TinyteeBackend(Backend):
    """``prepare(model).run(inputs)`` through a sealed bundle."""

    engine: Engine = staticmethod(sealed_engine)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> TinyteeRep:
        return TinyteeRep(model, cls.engine)

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == "CPU"


class ReferenceBackend(TinyteeBackend):
    """The same importer over the reference interpreter: what tells a wrong graph from a wrong engine."""

    engine: Engine = staticmethod(reference.evaluate)


prepare = TinyteeBackend.prepare
run_model = TinyteeBackend.run_model
supports_device = TinyteeBackend.supports_device
