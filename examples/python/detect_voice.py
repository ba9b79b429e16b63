"""Says when somebody speaks in a recording, with Silero's voice detector in 64 KiB of secure memory.

The model is in the package silero-vad on PyPI (silero_vad/data/silero_vad.onnx); the recording is a WAV file of 16 kHz,
mono.

python examples/python/detect_voice.py silero_vad.onnx recording.wav
"""

from __future__ import annotations

import secrets
import sys
import time
import wave

import numpy as np

import tinytee

RATE, STEP, CONTEXT = 16000, 512, 64
"""The model takes steps of 32 ms, each with the last samples before it."""


def main(model: str, recording: str) -> None:
    with wave.open(recording) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            sys.exit(f"{recording} is no recording of {RATE} Hz, mono, 16 bits a sample")
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 2**15
    key = secrets.token_bytes(32)
    shapes = {"input": (1, CONTEXT + STEP), "state": (2, 1, 128)}
    bundle = tinytee.compile(model, "64KiB", key, input_shapes=shapes, input_values={"sr": RATE})
    heard = np.concatenate([np.zeros(CONTEXT, np.float32), samples])
    state = np.zeros((2, 1, 128), np.float32)
    speaks, since, begun = [], 0.0, time.perf_counter()
    with tinytee.Session(bundle, key=key) as session:
        for at in range(0, len(samples) - STEP + 1, STEP):
            found = session.run({"input": heard[None, at : at + CONTEXT + STEP], "state": state})
            state = found["stateN"]
            speaks.append(bool(found["output"].item() > 0.5))
        peak = session.stats.peak_secure_memory_bytes
    taken = time.perf_counter() - begun
    for step, (before, now) in enumerate(zip([False, *speaks], [*speaks, False], strict=True)):
        if now and not before:
            since = step * STEP / RATE
        elif before and not now:
            print(f"{since:6.2f} s to {step * STEP / RATE:6.2f} s")
    each = 1e3 * taken / max(1, len(speaks))
    print(f"{peak:,} bytes of secure memory; {each:.2f} ms for each {1e3 * STEP / RATE:.0f} ms of sound")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
