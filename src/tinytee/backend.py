"""tinytee as an ONNX backend (``onnx.backend.base``), for the official conformance suites.

A model is compiled when it is first run, because tinytee needs weights at compile time and the suites' models pass
theirs as inputs: those that an operator needs as constants are bound to the values of that run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.backend.base import Backend, BackendRep, namedtupledict

from tinytee import passes
from tinytee.errors import UnsupportedModelError
from tinytee.importer import load
from tinytee.importer.walk import UnsupportedNodes
from tinytee.ir import reference
from tinytee.ir.graph import Graph

Engine = Callable[[Graph, Mapping[str, NDArray]], Mapping[str, NDArray]]
"""Runs a graph on arrays by input name."""

_MEMORY = "64MiB"


def sealed_engine(graph: Graph, inputs: Mapping[str, NDArray]) -> Mapping[str, NDArray]:
    """Compiles for the process port with a fresh key, and runs once."""
    from tinytee import api  # noqa: PLC0415  the runtime is not needed to import a model

    key = os.urandom(32)
    with api.Session(api.compile_graph(graph, secure_memory=_MEMORY, key=key), key=key) as session:
        return session.run(dict(inputs))


def import_bound(model: onnx.ModelProto, inputs: Mapping[str, NDArray]) -> tuple[Graph, dict[str, NDArray]]:
    """The model's graph, with the inputs that it needs as constants bound, and the inputs that are left.

    Raises:
        UnsupportedModelError: the model is not supported even so.
    """
    free = {name: array for name, array in inputs.items() if array.size}
    bound = {name: array for name, array in inputs.items() if not array.size}
    while True:
        shapes = {name: array.shape for name, array in free.items()}
        try:
            return passes.optimize(load(model, shapes, constants=bound)), free
        except UnsupportedNodes as error:
            needed = [name for name in error.bindable if name in free]
            if not needed:
                raise
            bound |= {name: free.pop(name) for name in needed}


class TinyteeRep(BackendRep):
    """A model, ready to run."""

    def __init__(self, model: onnx.ModelProto, engine: Engine) -> None:
        self.model = model
        self.engine = engine
        constants = {tensor.name for tensor in model.graph.initializer}
        self.names = [value.name for value in model.graph.input if value.name not in constants]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Arrays in the order of the model's inputs, or by name; returns the outputs in order."""
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        values = inputs.values() if isinstance(inputs, Mapping) else inputs
        if any(isinstance(array, (list, tuple)) or array is None for array in values):
            raise UnsupportedModelError("sequences and optional values are not supported as inputs, only tensors")
        given = dict(inputs) if isinstance(inputs, Mapping) else dict(zip(self.names, inputs, strict=False))
        graph, free = import_bound(self.model, {name: np.asarray(array) for name, array in given.items()})
        outputs = self.engine(graph, free)
        names = [value.name for value in self.model.graph.output]
        return namedtupledict("Outputs", names)(*(outputs[name] for name in names))


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


def prepare(model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> TinyteeRep:
    return TinyteeBackend.prepare(model, device, **kwargs)


def run_model(model: onnx.ModelProto, inputs: Sequence[Any], device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
    return TinyteeBackend.run_model(model, inputs, device, **kwargs)


def supports_device(device: str) -> bool:
    return TinyteeBackend.supports_device(device)
