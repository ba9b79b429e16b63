"""``--conformance-engine``: what runs the conformance suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--conformance-engine",
        choices=("core", "reference"),
        default="core",
        help="what runs the graphs: the sealed core (default) or the reference interpreter",
    )
