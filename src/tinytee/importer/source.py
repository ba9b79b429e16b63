"""Reads a model from wherever it comes, and says plainly what is wrong with it."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import google.protobuf.message
import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from tinytee.errors import TinyteeError, UnsupportedModelError
from tinytee.importer.definitions import with_definitions
from tinytee.importer.half import in_float32

ModelSource = str | PathLike[str] | bytes | onnx.ModelProto
_OLDEST_OPSET = 7
_CONVERTED_OPSET = 9


def read_model(model: ModelSource) -> tuple[ir.Model, int]:
    """The model in float32, its functions inlined, and the opset of the default domain.

    Raises:
        TinyteeError: no such file, a directory, a truncated or foreign file, an empty model, missing external data,
            an opset before 7.
    """
    proto, base = parse_model(model)
    try:
        proto = in_float32(proto, base)
    except Exception as error:
        raise TinyteeError(f"the model's float16 weights cannot be read: {error}") from error
    proto, version = _modern(proto)
    try:
        found = ir.from_proto(with_definitions(proto, version))
        if base is not None:
            ir.external_data.set_base_dir(found.graph, base)
        if found.functions:
            found = InlinePass()(found).model
    except Exception as error:
        raise TinyteeError(f"the model is malformed: {error}") from error
    return found, version


def parse_model(model: ModelSource) -> tuple[onnx.ModelProto, Path | None]:
    """The model as it is, and the folder of its external data, which is there, or None if it comes from no file.

    Raises:
        TinyteeError: no such file, a directory, a truncated or foreign file, an empty model, missing external data.
    """
    if isinstance(model, onnx.ModelProto):
        base, proto = None, model
    elif isinstance(model, bytes):
        base, proto = None, _parse(model, "the model's bytes")
    elif isinstance(model, (str, PathLike)):
        path = Path(model)
        base, proto = path.parent, _parse(_read(path), f"'{path}'")
    else:
        raise TypeError(f"a model is a path, bytes or an onnx.ModelProto, not {type(model).__name__}")
    if not proto.graph.node and not proto.graph.output:
        raise TinyteeError("the model is empty: it has neither nodes nor outputs; is this an ONNX file?")
    _check_external_data(proto, base)
    return proto, base


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise TinyteeError(f"'{path}' is a directory; name the .onnx file in it")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise TinyteeError(f"there is no file '{path}'") from None
    except OSError as error:
        raise TinyteeError(f"'{path}' cannot be read: {error.strerror}") from None


def _parse(data: bytes, where: str) -> onnx.ModelProto:
    if not data:
        raise TinyteeError(f"{where} is empty")
    try:
        proto = onnx.ModelProto.FromString(data)
    except (google.protobuf.message.DecodeError, UnicodeDecodeError):
        raise TinyteeError(f"{where} is not an ONNX model, or is truncated") from None
    if not proto.HasField("graph") or not proto.opset_import:
        raise TinyteeError(f"{where} is not an ONNX model: it has no graph or names no operator set")
    return proto


def _check_external_data(proto: onnx.ModelProto, base: Path | None) -> None:
    missing: list[str] = []
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if base is None:
            raise TinyteeError(
                f"the weights of '{tensor.name}' are in the external file '{location}', which a model given as bytes or"
                " as a ModelProto does not say how to find; load it from its path, or with onnx.load, which reads them"
            )
        if not (base / location).is_file():
            missing.append(location)
    if missing:
        names = ", ".join(f"'{name}'" for name in sorted(set(missing)))
        raise TinyteeError(f"the model keeps weights in {names}, missing beside it in '{base}'")


def _modern(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """The model and its opset; what is older than is read is converted."""
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        return proto, onnx.defs.onnx_opset_version()
    if versions[0] >= _OLDEST_OPSET:
        return proto, versions[0]
    try:
        return onnx.version_converter.convert_version(proto, _CONVERTED_OPSET), _CONVERTED_OPSET
    except Exception as error:
        raise UnsupportedModelError(
            f"the model uses opset {versions[0]}; {_OLDEST_OPSET} is the oldest that is read, and"
            f" onnx.version_converter cannot convert it: {error}"
        ) from error
