"""Device profiles: the constants of the cost model, measured on a target."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields, replace
from importlib import resources
from pathlib import Path

from tinytee.bundle.abi import constants

DEFAULT = "x86-64-avx512"

OF_ISA = {"avx2": "x86-64-avx2", "neon": "raspberry-pi-3", "neondot": "raspberry-pi-3"}
"""Profiles that ship with the package, by the instruction set of kernels that they were measured with; of others the
default one."""

OF_VENDOR = {("AuthenticAMD", "avx512"): "x86-64-avx512-zen4", ("AuthenticAMD", "avx512vnni"): "x86-64-avx512-zen4"}
"""Likewise, where processors of a vendor, as CPUID names it, differ from others with the same instructions."""

SHARING_SECONDS = 3e-6
"""What it costs to hand an instruction's or a chunk's work to other threads, and to wait for the last of them."""

MULTIPLYING_EFFICIENCY, SHARING_EFFICIENCY, OPENING_EFFICIENCY = 0.85, 0.7, 0.4
"""Of each thread beyond the first, measured on the built-in profile's machine: what reads and writes more than it
multiplies meets what lies in another's cache, opening chunks is nearly bound by memory already."""


@dataclass(frozen=True)
class Profile:
    """What the planner knows of a device. All times in seconds, of ``threads`` threads together.

    Attributes:
        name: of the device class.
        source: where the figures come from.
        suite: the AEAD suite to propose.
        lanes: float32 lanes of a vector.
        tile_pixels: pixels of the convolution's register tile (two vectors of channels wide).
        panels: weight panel widths (output channels) that its kernels run well.
        fma_seconds: one multiply-accumulate of a vector, inside a full tile.
        tile_seconds: overhead of one register tile.
        depthwise_seconds: one multiply-accumulate of a vector in a depthwise convolution.
        element_seconds: reading, combining and writing one element.
        function_seconds: one element of exp, tanh and the like.
        step_seconds: overhead of one instruction.
        chunk_seconds: overhead of one chunk that crosses the boundary.
        aead_bytes_per_second: opening sealed bytes, by suite.
        dot_tile_pixels: pixels of the register tile of a convolution on uint8.
        dot_seconds: one dot product of four bytes in every lane of a vector, inside such a tile.
        dot_tile_seconds: overhead of such a tile.
        dot_depthwise_seconds: four rows of one column of a depthwise convolution on uint8, a vector of channels.
        byte_seconds: reading, combining and writing one uint8.
        strassen_channels: channels, on either side, from which on a convolution may run by Strassen's method; 0: never.
        dot_panels: as panels, of convolutions on uint8; none: as panels.
        dot_panel_bytes: the most that such a panel may have to be wider than the narrowest; 0: any number.
        dot_products: whether processors have dot products of bytes, or else add products up in 16 bits.
        threads: threads that share a run.
        window_bytes: the most that can cross the boundary at once; 0: any number.
        decode_seconds: one coded weight to float32.
        entropy_seconds: one entropy-coded weight to float32.
        cache_bytes: what is larger does not stay in a core's own cache until it is used again.
        far_bytes_per_second: reading, or writing, what does not.
    """

    name: str
    source: str
    suite: str
    lanes: int
    tile_pixels: int
    panels: tuple[int, ...]
    fma_seconds: float
    tile_seconds: float
    depthwise_seconds: float
    element_seconds: float
    function_seconds: float
    step_seconds: float
    chunk_seconds: float
    aead_bytes_per_second: dict[str, float]
    dot_tile_pixels: int
    dot_seconds: float
    dot_tile_seconds: float
    dot_depthwise_seconds: float
    byte_seconds: float
    strassen_channels: int = 0
    dot_panels: tuple[int, ...] = ()
    dot_panel_bytes: int = 0
    dot_products: bool = True
    threads: int = 1
    window_bytes: int = 0
    decode_seconds: float = 1e-10
    entropy_seconds: float = 2e-9
    cache_bytes: int = 512 * 1024
    far_bytes_per_second: float = 2.5e10

    def with_threads(self, threads: int) -> Profile:
        """The same device with another number of threads to a run.

        Raises:
            ValueError: fewer than one, or more than a program can say.
        """
        if not 1 <= threads <= constants.TT_MAX_WORKERS:
            raise ValueError(f"a run is shared by 1 to {constants.TT_MAX_WORKERS} threads, not {threads}")
        multiplying, speed, opening = (
            _speed(threads, e) / _speed(self.threads, e)
            for e in (MULTIPLYING_EFFICIENCY, SHARING_EFFICIENCY, OPENING_EFFICIENCY)
        )
        sharing = SHARING_SECONDS * ((threads > 1) - (self.threads > 1))
        work = (
            "depthwise_seconds",
            "element_seconds",
            "function_seconds",
            "decode_seconds",
            "entropy_seconds",
            "dot_seconds",
            "dot_tile_seconds",
            "dot_depthwise_seconds",
            "byte_seconds",
        )
        return replace(
            self,
            threads=threads,
            step_seconds=self.step_seconds + sharing,
            chunk_seconds=self.chunk_seconds + sharing,
            aead_bytes_per_second={suite: rate * opening for suite, rate in self.aead_bytes_per_second.items()},
            **{name: getattr(self, name) / multiplying for name in ("fma_seconds", "tile_seconds")},
            **{name: getattr(self, name) / speed for name in work},
        )

    def aead_seconds(self, suite: str, count_bytes: float, chunks: float) -> float:
        """Time to open (or seal) so many bytes in so many chunks."""
        return count_bytes / self.aead_bytes_per_second[suite] + chunks * self.chunk_seconds

    def far_seconds(self, count_bytes: float) -> float:
        """Time that so many bytes cost because they are written and read again beyond the cache."""
        return 2 * count_bytes / self.far_bytes_per_second

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def for_isa(isa: str, vendor: str = "") -> Profile:
    """The shipped profile of machines whose kernels have this instruction set, and of a processor's vendor if known."""
    return load(OF_VENDOR.get((vendor, isa)) or OF_ISA.get(isa))


def _speed(threads: int, efficiency: float) -> float:
    return 1 + (threads - 1) * efficiency


def load(name_or_path: str | Path | None = None) -> Profile:
    """A profile that ships with the package, by name, or one from a file. One with a "base" says what differs from it.

    Raises:
        ValueError: no such profile, or the file is not one.
    """
    name = str(name_or_path or DEFAULT)
    shipped = resources.files("tinytee.plan") / "profiles" / f"{name}.json"
    source = shipped if shipped.is_file() else Path(name)
    try:
        values = json.loads(source.read_text(encoding="utf-8"))
        if "base" in values:
            values = {**asdict(load(values["base"])), **values}
        values["panels"] = tuple(values["panels"])
        values["dot_panels"] = tuple(values.get("dot_panels", ()))
        known = {f.name: values[f.name] for f in fields(Profile) if f.name in values or f.default is MISSING}
        return Profile(**known)
    except OSError:
        known = sorted(p.name.removesuffix(".json") for p in (resources.files("tinytee.plan") / "profiles").iterdir())
        raise ValueError(f"no device profile {name!r}: give a file, or one of {', '.join(known)}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name} is not a device profile: {error}; write one with `tinytee profile`") from None
