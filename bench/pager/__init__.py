"""An emulated enclave page cache, and two rivals of tinytee that run in it. See docs/results.md and epc.h."""
