"""A QEMU machine whose emulated TrustZone runs a genuine OP-TEE, and the wire to the feeder in it."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from tinytee.errors import EngineError

DEFAULT_HEAP = "2MiB"
"""Heap of the trusted application: the secure memory that a session may have, all included."""

HEAP_OVERHEAD_BYTES = 8 * 1024
"""What the largest arena is smaller than the heap, at most."""

HEAP_VARIABLE = "TINYTEE_OPTEE_HEAP"
"""Environment variable: heap of the trusted application of backend "optee-qemu"; 2MiB if it is not set."""

SESSIONS = 8
"""At once in one machine."""

ANSWER_SECONDS = 600.0
"""How long a machine may take for an answer before it is given up."""

_SOURCE = Path(__file__).resolve().parents[3]
_PORT = _SOURCE / "ports" / "optee"

Progress = Callable[[str, float], None]
"""Told what is being done, and which fraction of it is."""

_STEPS = (
    "looking",
    "downloading OP-TEE",
    "downloading Trusted",
    "unpacking",
    "building Trusted",
    "building the normal",
)
_STEPS += ("building the trusted", "ready")


def cache_folder() -> Path:
    """Where prepared machines lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinytee" / "optee"


def check_heap(heap: str) -> str:
    """The heap's size as the build wants it.

    Raises:
        ValueError: it is not 1MiB to 12MiB, or as many KiB.
    """
    match = re.fullmatch(r"(\d+) *(K|M)(iB)?", heap)
    size = int(match[1]) * (1024 if match[2] == "M" else 1) if match else 0
    if not 256 <= size <= 12 * 1024 or match is None:
        raise ValueError(f"a trusted application's heap is 256KiB to 12MiB, not {heap}")
    return f"{match[1]}{match[2]}iB"


def chosen_heap() -> str:
    """The heap that the environment asks for, or the default.

    Raises:
        ValueError: it is no heap's size.
    """
    return check_heap(os.environ.get(HEAP_VARIABLE) or DEFAULT_HEAP)


def prepare(heap: str = DEFAULT_HEAP, progress: Progress | None = None) -> Path:
    """Downloads and builds what a machine needs, once; afterwards only what has changed.

    Args:
        heap: of the trusted application, "256KiB" to "12MiB".
        progress: told what is being done, and which fraction of it is.

    Returns:
        The cache folder.

    Raises:
        EngineError: packages are missing, cannot be downloaded, or do not build; it says which command helps.
        ValueError: the heap's size is none.
    """
    heap = check_heap(heap)
    script = _PORT / "qemu" / "prepare.sh"
    if not script.exists():
        raise EngineError(
            "the machine is built from tinytee's source tree: clone it, and install with pip install -e ."
        )
    command = ["bash", str(script), str(cache_folder()), heap, _image_name(heap)]
    environment = {**os.environ, "PYTHON3": sys.executable}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        error = ""
        for line in process.stdout:
            said = line.strip()
            if said.startswith("error: "):
                error = error or said.removeprefix("error: ")
            elif progress is not None:
                at = next((i for i, step in enumerate(_STEPS) if said.startswith(step)), 0)
                progress(said, at / (len(_STEPS) - 1))
    if error or process.returncode != 0:
        raise EngineError(f"the OP-TEE machine cannot be prepared: {error or 'see prepare.log in its cache folder'}")
    return cache_folder()


def _image_name(heap: str) -> str:
    """Name of the image of that heap, by what it is built from: several source trees may share a cache."""
    digest = hashlib.sha256()
    for room in (_SOURCE / "core", _PORT):
        for path in sorted(path for path in room.rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(_SOURCE)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return f"{heap}-{digest.hexdigest()[:16]}"


def image(heap: str) -> Path:
    """The initial file system of a machine of that heap, built from the sources as they are now; it may not exist."""
    return cache_folder() / "initramfs" / _image_name(check_heap(heap))


class Machine:
    """A running machine. Several sessions may share it; it ends with the last one that holds it.

    Args:
        heap: of the trusted application.
        count_instructions: let the guest's clock count instructions (1 ns each), at the price of speed.

    Raises:
        EngineError: it cannot be prepared, or does not boot.
    """

    def __init__(self, heap: str = DEFAULT_HEAP, *, count_instructions: bool = False) -> None:
        self.heap = check_heap(heap)
        if shutil.which("qemu-system-aarch64") is None:
            raise EngineError("qemu-system-aarch64 is missing: apt-get install --no-install-recommends qemu-system-arm")
        if not image(self.heap).exists():
            prepare(self.heap)
        self.lock = threading.RLock()
        self._free = set(range(SESSIONS))
        self._holders = 0
        self._folder = tempfile.TemporaryDirectory(prefix="tinytee-optee-")
        self._process, self._wire = self._boot(count_instructions)
        self.stream = self._wire.makefile("rwb")
        atexit.register(self.off)

    def _boot(self, count_instructions: bool) -> tuple[subprocess.Popen[bytes], socket.socket]:
        cache, here = cache_folder(), Path(self._folder.name)
        ours, theirs = socket.socketpair()
        command = ["qemu-system-aarch64", "-machine", "virt,secure=on,gic-version=3", "-cpu", "cortex-a53"]
        command += ["-smp", "1", "-m", "1024", "-nic", "none", "-display", "none", "-monitor", "none"]
        command += ["-icount", "shift=0,sleep=off"] if count_instructions else []
        command += ["-bios", str(cache / "flash.bin"), "-kernel", str(cache / "kernel")]
        command += ["-initrd", str(image(self.heap)), "-append", "console=ttyAMA0 loglevel=4"]
        command += ["-serial", f"file:{here / 'normal.log'}", "-serial", f"file:{here / 'secure.log'}"]
        command += ["-chardev", f"socket,id=wire,fd={theirs.fileno()}", "-device", "virtio-serial-pci"]
        command += ["-device", "virtserialport,chardev=wire,name=tinytee"]
        with theirs, (here / "qemu.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[theirs.fileno()]
            )
        ours.settimeout(ANSWER_SECONDS)
        return process, ours

    def logs(self) -> dict[str, str]:
        """What the normal world, the secure world and QEMU itself have said."""
        if not Path(self._folder.name).exists():
            return {}
        return {path.stem: path.read_text(errors="replace") for path in Path(self._folder.name).glob("*.log")}

    def why(self) -> str:
        """The last thing that was said, for a message."""
        said = [line for log in self.logs().values() for line in log.splitlines() if line.strip()]
        return said[-1].strip() if said else "it said nothing"

    def take_session(self) -> int:
        """The number of a free session.

        Raises:
            EngineError: all are taken.
        """
        with self.lock:
            if not self._free:
                raise EngineError(f"this machine has {SESSIONS} sessions open; close one")
            return self._free.pop()

    def give_session(self, number: int) -> None:
        with self.lock:
            self._free.add(number)

    def hold(self) -> None:
        with self.lock:
            self._holders += 1

    def release(self) -> None:
        """Ends the machine with its last holder."""
        with self.lock:
            self._holders -= 1
            if self._holders <= 0:
                self.off()

    @property
    def is_on(self) -> bool:
        return self._process.poll() is None

    def off(self) -> None:
        """Switches the machine off; permitted more than once."""
        with self.lock:
            atexit.unregister(self.off)
            with contextlib.suppress(OSError, ValueError):
                self.stream.close()
            self._wire.close()
            if self.is_on:
                self._process.terminate()
            self._process.wait()
            self._folder.cleanup()

    def __enter__(self) -> Machine:
        self.hold()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_machines: dict[str, Machine] = {}
_machines_lock = threading.Lock()


def shared_machine(heap: str) -> Machine:
    """The process' running machine of that heap, booted if there is none; held, release it."""
    with _machines_lock:
        machine = _machines.get(heap)
        if machine is None or not machine.is_on:
            machine = _machines[heap] = Machine(heap)
        machine.hold()
        return machine
