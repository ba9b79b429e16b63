"""``--library``: which libtinytee.so the tests load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinytee.runtime import library


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--library", type=Path, help="a libtinytee.so to test in place of the build's")


def pytest_configure(config: pytest.Config) -> None:
    chosen = config.getoption("--library")
    if chosen is not None:
        library.PLACES = (chosen.resolve(strict=True),)
