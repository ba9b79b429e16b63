"""``--library``: which libtinytee.so the tests load. And the counts of the conformance run, printed at the end."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from tinytee.runtime import library

# One and the same set of examples on every run of CI; new ones on every run elsewhere.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--library", type=Path, help="a libtinytee.so to test in place of the build's")


def pytest_configure(config: pytest.Config) -> None:
    chosen = config.getoption("--library")
    if chosen is not None:
        library.PLACES = (chosen.resolve(strict=True),)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                counts.update(str(value) for key, value in report.user_properties if key == "conformance")
    if counts:
        text = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "refused", "excepted"))
        terminalreporter.write_line(f"ONNX conformance: {text}")
