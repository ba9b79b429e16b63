"""``--library``: which libtinytee.so the tests load. Which tests share a worker. And the counts of the conformance run,
printed at the end."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tinytee.runtime import library

# One and the same set of examples on every run of CI; new ones on every run elsewhere.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

pytest.register_assert_rewrite("trusted")


ONE_WORKER = ("bench", "emulated", "fuzz", "machine_code", "optee")
"""Folders whose tests share a machine or a build, or measure: one worker runs all of a folder."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Test by test, but for those folders. (xdist_group marks have no effect with pytest 9.2 and xdist 3.8.)"""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415

    class ByFolder(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = Path(nodeid.partition("::")[0]).parent.name
            return folder if folder in ONE_WORKER else nodeid

    return ByFolder(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes begins first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


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
