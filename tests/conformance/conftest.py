"""Counts of the conformance run, printed at its end."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--conformance-engine",
        choices=("core", "reference"),
        default="core",
        help="what runs the graphs: the sealed core (default) or the reference interpreter",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                counts.update(str(value) for key, value in report.user_properties if key == "conformance")
    if counts:
        text = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "refused", "excepted"))
        terminalreporter.write_line(f"ONNX conformance: {text}")
