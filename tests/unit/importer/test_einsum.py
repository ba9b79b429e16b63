"""Einstein sums against ONNX Runtime."""

from __future__ import annotations

import pytest

from tinytee.errors import UnsupportedModelError
from tinytee.importer import load
from unit.importer.support import compare, kinds, model, node, random

SUMS = [
    ("bhid,bhjd->bhij", (2, 2, 5, 4), (2, 2, 6, 4)),
    ("bhij,bhjd->bhid", (1, 2, 5, 6), (1, 2, 6, 4)),
    ("bnqd,bkd->bnqk", (1, 2, 5, 4), (1, 6, 4)),
    ("...ij,...jk->...ik", (2, 3, 4, 5), (2, 3, 5, 6)),
    ("...ij,jk", (2, 3, 4, 5), (5, 6)),
    ("ij,jk", (3, 4), (4, 5)),
    ("bij,bjk->bki", (1, 3, 4), (1, 4, 5)),
    ("bchw,bkhw->bck", (1, 3, 4, 5), (1, 2, 4, 5)),
    ("bi,bj->bij", (2, 3), (2, 4)),
    ("bij,bji->bij", (2, 3, 4), (2, 4, 3)),
    ("bij,bj->b", (2, 3, 4), (2, 4)),
]
WITH_CONSTANTS = [
    ("bij,jk->bik", (2, 3, 4), (4, 5)),
    ("bhid,hdk->bhik", (2, 3, 4, 5), (3, 5, 6)),
    ("bih,hk->bihk", (2, 4, 3), (3, 6)),
    ("bid,hdk->bhik", (2, 3, 4), (2, 4, 5)),
    ("bhwc,hwk->bck", (2, 3, 4, 5), (3, 4, 2)),
    ("nctv,kvw->nkctw", (1, 3, 4, 5), (3, 5, 5)),
    ("nkctv,kvw->nctw", (2, 3, 4, 6, 5), (3, 5, 5)),
    ("bhij,hij->bhij", (2, 3, 4, 5), (3, 4, 5)),
    ("b i , i -> b", (2, 3), (3,)),
]


@pytest.mark.parametrize(("equation", "left", "right"), SUMS)
def test_sums_of_two_values(equation: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    compare(model([node("Einsum", "a b", equation=equation)], {"a": left, "b": right}))


@pytest.mark.parametrize(("equation", "left", "right"), WITH_CONSTANTS)
@pytest.mark.parametrize("turned", [False, True])
def test_sums_with_a_constant(equation: str, left: tuple[int, ...], right: tuple[int, ...], turned: bool) -> None:
    terms, _, result = equation.partition("->")
    if turned:
        terms = ",".join(reversed(terms.split(",")))
    words = "w x" if turned else "x w"
    proto = model([node("Einsum", words, equation=f"{terms}->{result}")], {"x": left}, {"w": random(right, 9)})
    assert compare(proto).inputs[0].batched


@pytest.mark.parametrize("equation", ["ij->ji", "bij->b", "bij->bji", "...j->...", "ij"])
def test_sums_of_one_value(equation: str) -> None:
    rank = 3 if "b" in equation else 2
    compare(model([node("Einsum", "x", equation=equation)], {"x": (2, 3, 4)[:rank]}))


def test_products_element_by_element_are_no_matrix_products() -> None:
    graph = compare(model([node("Einsum", "a b", equation="bij,bji->bij")], {"a": (2, 3, 4), "b": (2, 4, 3)}))
    assert "Product" not in kinds(graph)


@pytest.mark.parametrize(
    ("equation", "shapes", "reason"),
    [
        ("ii->i", [(3, 3)], "takes a diagonal"),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)], "more than two operands"),
        ("ij,jk->ik", [(2, 3), (4, 5)], "axes of 3 and 4 meet"),
        ("ij->i", [(2, 3, 4)], "'ij' meets 3 axes"),
        ("ij,j->i", [(2, 3)], "has 2 operands"),
    ],
)
def test_refused_sums(equation: str, shapes: list[tuple[int, ...]], reason: str) -> None:
    names = "abc"[: len(shapes)]
    nodes = [node("Relu", name, f"r{name}") for name in names]
    nodes.append(node("Einsum", " ".join(f"r{name}" for name in names), equation=equation))
    with pytest.raises(UnsupportedModelError, match=reason):
        load(model(nodes, dict(zip(names, shapes, strict=True))))
