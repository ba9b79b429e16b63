"""A QEMU machine whose emulated TrustZone runs a genuine OP-TEE, and the wire to the feeder in it."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinytee.errors import EngineError
from tinytee.runtime.wire import Wire, numbers

DEFAULT_HEAP = "2MiB"
"""Heap of the trusted application: the secure memory that a session may have, all included."""

HEAP_OVERHEAD_BYTES = 8 * 1024
"""What the largest arena is smaller than the heap, at most."""

HEAP_VARIABLE, CRYPTO_VARIABLE = "TINYTEE_OPTEE_HEAP", "TINYTEE_OPTEE_CRYPTO"
PRODUCTION_VARIABLE = "TINYTEE_OPTEE_PRODUCTION"
"""Environment variables of backend "optee-qemu": the trusted application's heap (2MiB), its cryptography (nettle, or
bearssl), and whether it refuses keys in the clear (1; else it takes them)."""

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


def storage_folder() -> Path:
    """Where the machines' OP-TEE keeps its secure storage: the device's identity, which outlives them."""
    return cache_folder() / "storage"


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


@dataclass(frozen=True)
class Build:
    """A trusted application as it is built.

    Attributes:
        heap: "256KiB" to "12MiB".
        crypto: "nettle", or "bearssl".
        is_development: whether it takes keys in the clear.
        kernels: C files in place of the core's kernels, for benchmarks.
    """

    heap: str = DEFAULT_HEAP
    crypto: str = "nettle"
    is_development: bool = True
    kernels: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "heap", check_heap(self.heap))
        if self.crypto not in ("nettle", "bearssl"):
            raise ValueError(f"the trusted application's cryptography is nettle or bearssl, not '{self.crypto}'")

    def variables(self) -> list[str]:
        """What its Makefile is told."""
        told = [f"HEAP={self.heap}", f"CRYPTO={self.crypto}", f"DEVELOPMENT={int(self.is_development)}"]
        return told + ([f"KERNELS={' '.join(map(str, self.kernels))}"] if self.kernels else [])

    @property
    def name(self) -> str:
        """Of its image, by what it is built from: several source trees may share a cache."""
        digest = hashlib.sha256(" ".join(self.variables()).encode())
        sources = [path for room in (_SOURCE / "core", _PORT) for path in room.rglob("*") if path.is_file()]
        for path in sorted(sources) + list(self.kernels):
            digest.update(f"{path} {path.stat().st_size}\n".encode() + path.read_bytes())
        return f"{self.heap}-{digest.hexdigest()[:16]}"

    @property
    def image(self) -> Path:
        """The initial file system of its machine, built from the sources as they are now; it may not exist."""
        return cache_folder() / "initramfs" / self.name


def chosen_build() -> Build:
    """What the environment asks for.

    Raises:
        ValueError: there is no such build.
    """
    said = os.environ.get
    return Build(
        heap=said(HEAP_VARIABLE) or DEFAULT_HEAP,
        crypto=said(CRYPTO_VARIABLE) or "nettle",
        is_development=said(PRODUCTION_VARIABLE, "0") in ("", "0"),
    )


def prepare(build: Build | None = None, progress: Progress | None = None) -> Path:
    """Downloads and builds what a machine needs, once; afterwards only what has changed.

    Args:
        build: of the trusted application; the default one if None.
        progress: told what is being done, and which fraction of it is.

    Returns:
        The cache folder.

    Raises:
        EngineError: packages are missing, cannot be downloaded, or do not build; it says which command helps.
        ValueError: the heap's size is none.
    """
    build = build or Build()
    script = _PORT / "qemu" / "prepare.sh"
    if not script.exists():
        raise EngineError(
            "the machine is built from tinytee's source tree: clone it, and install with pip install -e ."
        )
    command = ["bash", str(script), str(cache_folder()), build.name, *build.variables()]
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


class Machine:
    """A running machine. Several sessions may share it; it ends with the last one that holds it.

    Args:
        build: of the trusted application.
        count_instructions: let the guest's clock count instructions (1 ns each), at the price of speed.

    Raises:
        EngineError: it cannot be prepared, or does not boot.
    """

    def __init__(self, build: Build | None = None, *, count_instructions: bool = False) -> None:
        self.build = build or Build()
        if shutil.which("qemu-system-aarch64") is None:
            raise EngineError("qemu-system-aarch64 is missing: apt-get install --no-install-recommends qemu-system-arm")
        if not self.build.image.exists():
            prepare(self.build)
        self.lock = threading.RLock()
        self._free = set(range(SESSIONS))
        self._holders = 0
        self._folder = tempfile.TemporaryDirectory(prefix="tinytee-optee-")
        self._process, self._wire, self._shell = self._boot(count_instructions)
        self.stream = self._wire.makefile("rwb")
        atexit.register(self.off)
        self._make_identity()

    @property
    def folder(self) -> Path:
        """The guest's /host."""
        return Path(self._folder.name)

    def _boot(self, count_instructions: bool) -> tuple[subprocess.Popen[bytes], socket.socket, socket.socket]:
        cache, here = cache_folder(), self.folder
        ours, theirs = socket.socketpair()
        shell, its_shell = socket.socketpair()
        storage_folder().mkdir(parents=True, exist_ok=True)
        command = ["qemu-system-aarch64", "-machine", "virt,secure=on,gic-version=3", "-cpu", "cortex-a53"]
        command += ["-smp", "1", "-m", "1024", "-nic", "none", "-display", "none", "-monitor", "none"]
        command += ["-icount", "shift=0,sleep=off"] if count_instructions else []
        command += ["-bios", str(cache / "flash.bin"), "-kernel", str(cache / "kernel")]
        command += ["-initrd", str(self.build.image), "-append", "console=ttyAMA0 loglevel=4"]
        command += ["-serial", f"file:{here / 'normal.log'}", "-serial", f"file:{here / 'secure.log'}"]
        command += ["-chardev", f"socket,id=wire,fd={theirs.fileno()}", "-device", "virtio-serial-pci"]
        command += ["-device", "virtserialport,chardev=wire,name=tinytee"]
        command += ["-chardev", f"socket,id=shell,fd={its_shell.fileno()}"]
        command += ["-device", "virtserialport,chardev=shell,name=shell"]
        for tag, folder in (("storage", storage_folder()), ("host", here)):
            command += ["-fsdev", f"local,id={tag},path={folder},security_model=none"]
            command += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
        with theirs, its_shell, (here / "qemu.log").open("wb") as log:
            passed = [theirs.fileno(), its_shell.fileno()]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=passed)
        for end in (ours, shell):
            end.settimeout(ANSWER_SECONDS)
        return process, ours, shell

    def _make_identity(self) -> None:
        """Lets the trusted application make its key pair, one machine at a time, if there is none in the storage."""
        with (storage_folder() / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not any(storage_folder().glob("data/tee/*")):
                wire = Wire(self.stream, self.stream, self.why)
                wire.ask(numbers.TTF_DEVICE, 0)
                wire.ask(numbers.TTF_CLOSE, 0)

    def shell(self, command: str) -> tuple[int, str]:
        """Runs a command in the normal world.

        Returns:
            Its exit status, and all that it said.

        Raises:
            EngineError: the machine does not answer.
        """
        mark = f"ended-{secrets.token_hex(8)}"
        said = b""
        try:
            self._shell.sendall(f"( {command}\n); status=$?; echo; echo {mark} $status\n".encode())
            while not (found := re.search(rf"\n{mark} (\d+)\n".encode(), said)):
                got = self._shell.recv(65536)
                if not got:
                    raise EngineError(f"the machine is gone: {self.why()}")
                said += got
        except OSError as error:
            raise EngineError(f"the machine does not answer: {self.why()}") from error
        return int(found[1]), said[: found.start()].decode(errors="replace").removesuffix("\n")

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
            self._shell.close()
            if self.is_on:
                self._process.terminate()
            self._process.wait()
            self._folder.cleanup()

    def __enter__(self) -> Machine:
        self.hold()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_machines: dict[Build, Machine] = {}
_machines_lock = threading.Lock()


def shared_machine(build: Build) -> Machine:
    """The process' running machine of that build, booted if there is none; held, release it."""
    with _machines_lock:
        machine = _machines.get(build)
        if machine is None or not machine.is_on:
            machine = _machines[build] = Machine(build)
        machine.hold()
        return machine
