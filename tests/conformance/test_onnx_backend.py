"""ONNX's own backend suites (node, simple, converted and exported PyTorch, light models) against tinytee.

Each test passes, or is refused with UnsupportedModelError, or is listed in ``exceptions`` with its reason; the counts
are printed at the end. ``--conformance-engine reference`` holds the importer alone to the suites.
"""

from __future__ import annotations

import functools
import re
import unittest
import warnings
from collections.abc import Callable

import pytest
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from conformance.exceptions import EXCEPTIONS, LISTED
from tinytee.backend import ReferenceBackend, TinyteeBackend
from tinytee.errors import UnsupportedModelError

_LIGHT_ENOUGH = ("test_squeezenet_cpu", "test_shufflenet_cpu")
"""Of the light models; the zoo's tests run all of them with weights that show errors."""


@functools.cache
def _runner(engine: str) -> Runner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Runner(TinyteeBackend if engine == "core" else ReferenceBackend)


@functools.cache
def _single_nodes() -> dict[str, str]:
    """Operator of every test that is a single node."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    return {
        f"{case.name}_cpu": case.model.graph.node[0].op_type
        for case in cases
        if case.model is not None and len(case.model.graph.node) == 1 and not case.model.graph.node[0].domain
    }


def _names() -> list[tuple[str, str]]:
    found = []
    for category, items in _runner("reference")._test_items.items():
        for name in sorted(items):
            if name.endswith("_cpu") and (category != "Real" or name in _LIGHT_ENOUGH):
                found.append((category, name))
    return found


def _exception(name: str) -> str | None:
    short = name.removeprefix("test_").removesuffix("_cpu")
    return next((reason for pattern, reason in EXCEPTIONS.items() if re.fullmatch(pattern, short)), None)


@pytest.mark.parametrize(("category", "name"), _names(), ids=lambda value: value)
@pytest.mark.filterwarnings("ignore")
def test_conformance(
    category: str, name: str, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    engine = request.config.getoption("--conformance-engine", default="core")
    item = _runner(engine)._test_items[category][name]
    reason = _exception(name)
    try:
        item.func(unittest.TestCase())
    except UnsupportedModelError as error:
        outcome, found = "refused", str(error)
    except AssertionError as error:
        if reason is None:
            raise
        outcome, found = "excepted", str(error)
    else:
        outcome, found = "passed", ""
    assert reason is None or outcome != "passed", f"{name} passes; take it off the list of exceptions"
    operator = _single_nodes().get(name)
    if outcome == "refused" and operator in LISTED:
        assert reason is not None, f"{operator} is a listed operator, but refused: {found}"
    if reason is not None:
        outcome = "excepted"
    record_property("conformance", outcome)
