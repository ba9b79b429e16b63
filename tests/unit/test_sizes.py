from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytee.sizes import MAX_BYTES, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("512KiB", 512 * 1024),
        ("1MiB", 1 << 20),
        ("1 MiB", 1 << 20),
        (" 1.5mib ", 3 << 19),
        ("2GiB", 2 << 30),
        ("65536", 65536),
        ("65536B", 65536),
        (7, 7),
        ("4294967295", MAX_BYTES),
    ],
)
def test_sizes_are_read(text: str | int, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize(
    "text", ["", "MiB", "1MB", "1M", "1KB", "-1", "1e6", "0x10", "1.3KiB", "nan", "1 Mi B", "１MiB", "1,024"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a size|whole number"):
        parse_size(text)


@pytest.mark.parametrize("text", [0, -5, "0", "5GiB", 2**32, "99999999999999999999"])
def test_sizes_out_of_range_are_refused(text: str | int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        parse_size(text)


@pytest.mark.parametrize("value", [1.5, None, True, b"1MiB"])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        parse_size(value)  # type: ignore[arg-type]


def test_decimal_units_say_why() -> None:
    with pytest.raises(ValueError, match="KB and MB are not used"):
        parse_size("10MB")


@given(st.integers(1, MAX_BYTES))
def test_every_number_of_bytes_is_itself(count: int) -> None:
    assert parse_size(count) == parse_size(str(count)) == count
    assert format_size(count)
