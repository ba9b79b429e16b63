"""tinytee runs whole ONNX networks inside a fixed number of bytes of secure memory.

bundle = tinytee.compile("model.onnx", secure_memory="1MiB", key=key)
bundle.save("model.tt")
with tinytee.Session("model.tt", key=key) as session:
    outputs = session.run({"input": x})
"""

from tinytee.api import compile, load_image, quantize_model
from tinytee.bundle import Bundle, Manifest, Preprocessing, TensorSpec
from tinytee.bundle.version import VERSION
from tinytee.errors import (
    AuthenticationError,
    BudgetError,
    BundleError,
    EngineError,
    TinyteeError,
    UnsupportedModelError,
)
from tinytee.runtime import (
    Attested,
    SealedKey,
    Session,
    SessionStats,
    device_key,
    make_quote,
    provision,
    verify_quote,
)

__version__ = VERSION

__all__ = [
    "Attested",
    "AuthenticationError",
    "BudgetError",
    "Bundle",
    "BundleError",
    "EngineError",
    "Manifest",
    "Preprocessing",
    "SealedKey",
    "Session",
    "SessionStats",
    "TensorSpec",
    "TinyteeError",
    "UnsupportedModelError",
    "__version__",
    "compile",
    "device_key",
    "load_image",
    "make_quote",
    "provision",
    "quantize_model",
    "verify_quote",
]
