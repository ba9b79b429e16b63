"""A machine with OP-TEE for all tests of this folder, which one worker runs (see tests/conftest.py)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

import tinytee
from tinytee import zoo
from tinytee.plan import profile
from tinytee.runtime import optee_machine

KEY = secrets.token_bytes(32)

Compile = Callable[..., tinytee.Bundle]


@pytest.fixture(scope="session")
def machine() -> Iterator[optee_machine.Machine]:
    """Booted once; sessions of backend "optee-qemu" share it."""
    shared = optee_machine.shared_machine(optee_machine.chosen_build())
    yield shared
    shared.release()


@pytest.fixture(scope="session")
def compile_network() -> Compile:
    """Compiles a network of the zoo for the Raspberry Pi 3, once."""
    planned = profile.load("raspberry-pi-3")

    @cache
    def compile_once(name: str, budget: str, suite: str | None = None) -> tinytee.Bundle:
        return tinytee.compile(zoo.NETWORKS[name].build(), budget, KEY, profile=planned, suite=suite)

    return compile_once


def feed_of(name: str, seed: int = 0) -> dict[str, Any]:
    network = zoo.NETWORKS[name]
    return {network.input_name: zoo.reference_input(network, seed)}
