"""What is known of this machine's processor, and what ONNX Runtime is told of it."""

from __future__ import annotations

import onnxruntime
import pytest

from tinytee import processor
from tinytee.ort import EXACT_INT8, open_session
from tinytee.zoo import NETWORKS


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512f avx512_vnni", True), ("fpu avx_vnni", True), ("fpu avx2 avx512f", False), ("", False)],
)
def test_vnni_is_either_set_of_dot_products(monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool) -> None:
    monkeypatch.setattr(processor, "facts", lambda: {"flags": flags, "vendor_id": "GenuineIntel"})
    assert processor.has_vnni() is expected
    assert processor.vendor() == "GenuineIntel"


@pytest.mark.parametrize("vnni", [False, True])
def test_onnx_runtime_takes_slower_products_only_where_the_others_saturate(
    monkeypatch: pytest.MonkeyPatch, vnni: bool
) -> None:
    monkeypatch.setattr(processor, "has_vnni", lambda: vnni)
    options = onnxruntime.SessionOptions()
    open_session(NETWORKS["lenet5"].build(), options)
    assert options.get_session_config_entry(EXACT_INT8) == ("0" if vnni else "1")
