"""The command for whoever wants to know what protection costs their own network: bench."""

from __future__ import annotations

import statistics
from typing import Annotated, Any

import numpy as np
import typer

from tinytee import api
from tinytee import cli_common as common
from tinytee.bundle import TensorSpec
from tinytee.cli_run import random_array
from tinytee.report import bench_table
from tinytee.sizes import format_size, parse_size

MOST_TRIES = 2
"""So many times the rounds that are wanted, where others' work on the same cores disturbs some."""


def bench(
    model: common.ModelPath,
    memory: Annotated[
        str, typer.Option("--memory", "-m", help="Secure memory: sizes between commas.")
    ] = "1MiB,2MiB,4MiB",
    suite: Annotated[
        str | None, typer.Option("--suite", help="AEADs between commas: aes-256-gcm, chacha20-poly1305, aegis-256x4.")
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Of each contender, in turns.")] = 9,
    seed: Annotated[int, typer.Option("--seed", help="Of the random input.")] = 0,
    as_json: common.Json = False,
    input_shape: common.InputShapes = None,
    input_value: common.InputValues = None,
    profile: common.ProfileName = None,
    isa: common.Isa = None,
    threads: common.Threads = None,
) -> None:
    """Measure a model within budgets of secure memory beside unprotected ONNX Runtime (and OpenVINO, if installed).

    All run on one thread, or on as many as --threads says, in turns; times are medians, with half the distance between
    the quartiles. Rounds in which others' work slows the machine down are measured again, twice as many in all at
    most. Exits with 1 if a budget is too small.
    """
    from tinytee.bench import Bench, measure_row, prediction_errors, steady_probe  # noqa: PLC0415
    from tinytee.importer import reference_model  # noqa: PLC0415

    budgets, device = [parse_size(size) for size in memory.split(",")], api.find_profile(profile)
    suites = list(dict.fromkeys(api.choose_suite(name, device) for name in (suite or "").split(",")))
    shapes, fixed = common.parse_input_shapes(input_shape), common.fixed_model(model, input_value)
    rows: list[dict[str, Any]] = []
    with common.progress_bar() as report:
        report("importing", 0.0)
        graph = api.load_graph(fixed, shapes)
        generator = np.random.default_rng(seed)
        specs = [TensorSpec.of(port, graph.shapes[port.tensor], graph.quants.get(port.tensor)) for port in graph.inputs]
        feed = {spec.name: random_array(generator, spec) for spec in specs}
        report("ONNX Runtime", 0.0)
        contest = Bench(reference_model(fixed), graph, feed, isa=isa, threads=threads or 1)
        how = {"profile": device, "rounds": runs, "steady": steady_probe(threads or 1), "most_tries": MOST_TRIES}
        cases = [(name, budget) for name in suites for budget in budgets]
        for position, (name, budget) in enumerate(cases):
            report(f"{name}, {format_size(budget)}", position / len(cases))
            rows.append(measure_row(contest, budget, suite=name, **how))
    if as_json:
        common.print_json(rows)
    else:
        for name in suites:
            title = f"{model.name} under {name}: wall time of a run, in turns, threads each: {threads or 1}"
            common.output.print(bench_table([row for row in rows if row["suite"] == name], title))
        errors = prediction_errors(rows)
        if errors:
            common.output.print(f"the cost model's median error is {statistics.median(errors):.0%}")
        steady, counted = (sum(row.get(name, 0) for row in rows) for name in ("steady_rounds", "rounds"))
        if steady < counted:
            common.output.print(
                f"others' work slowed this machine down in {counted - steady} of the {counted} rounds, and whoever uses"
                " more of a core loses more of it: measure again when it is idle"
            )
    if any("failure" in row for row in rows):
        raise typer.Exit(1)
