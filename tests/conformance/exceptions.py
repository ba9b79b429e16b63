"""What the official suites ask for and tinytee does not do, with the reason.

A single-node test of an operator in ``LISTED`` must pass unless a pattern of ``EXCEPTIONS`` names it. Every other test
may also be refused, but never be wrong. What is excepted and yet passes is a failure, so that the
list stays true. The patterns are regular expressions over whole test names, without the
``test_`` before and the ``_cpu`` after.
"""

from __future__ import annotations

LISTED = {
    "Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
    "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "BatchNormalization", "InstanceNormalization",
    "GroupNormalization", "LayerNormalization", "LRN", "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid",
    "HardSwish", "Swish", "Tanh", "Elu", "Selu", "Celu", "ThresholdedRelu", "Softplus", "Softsign", "Gelu", "Erf",
    "Mish", "Exp", "Log", "Sqrt", "Abs", "Neg", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Pow", "Add", "Sub",
    "Mul", "Div", "Min", "Max", "Sum", "Mean", "Concat", "Split", "Slice", "Pad", "Resize", "Upsample", "DepthToSpace",
    "SpaceToDepth", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "Gather", "Softmax",
    "LogSoftmax", "ArgMax", "ArgMin", "Cast", "CastLike", "Constant", "ConstantOfShape", "Identity", "Dropout", "Shape",
    "Size",
}  # fmt: skip

_INTEGERS = "arithmetic on integers is refused: tensors are float32, exact for integers only up to 2**24"
_TYPES = (
    "tensors are float32, which float16 and bfloat16 become; float64 arithmetic, float8 and sub-byte types are refused"
)
_UNSIGNED = "of the unsigned types only uint8 is carried"
_EMPTY = "tensors without elements are refused"
_TRAINING = "training modes are refused"
_INDICES = "the second output of MaxPool, Indices, is refused"
_THREE_D = "images have one or two dimensions; three are refused"
_SEQUENCES = "sequences and optional values are refused"
_OTHER = "FLOAT4\\w+|FLOAT8\\w+|U?INT[24]"

EXCEPTIONS: dict[str, str] = {
    r"resize_downsample_scales_(linear|cubic)_align_corners": (
        "align_corners spans the whole elements of the output, as ONNX Runtime and PyTorch do; the suite's reference"
        " spans the fractional size, input * scale"
    ),
    r"resize_tf_crop_and_resize.*": "tf_crop_and_resize is refused: the region of interest is not a whole axis",
    r"(add|sub|mul)_u?int(8|16|32|64)": _INTEGERS,
    r"div_u?int(8|16|32|64)(_trunc)?": _INTEGERS,
    r"pow_types_int(32|64)_\w+": _INTEGERS,
    rf"cast(like)?_(no_saturate_|e8m0_)?({_OTHER}|DOUBLE)_to_\w+": _TYPES,
    rf"cast(like)?_(no_saturate_|e8m0_)?\w+_to_({_OTHER})(_expanded)?": _TYPES,
    r"(max|min)_float64": _TYPES,
    r"(max|min)_uint(16|32|64)": _UNSIGNED,
    r"pow_types_float32_uint(32|64)": _UNSIGNED,
    r"(averagepool|maxpool)_3d_\w+": _THREE_D,
    r"convtranspose_3d": _THREE_D,
    r"batchnorm_\w+_training_mode": _TRAINING,
    r"training_dropout(_default)?(_mask)?": _TRAINING,
    r"maxpool_with_argmax_\w+": _INDICES,
    r"identity_(opt|sequence)": _SEQUENCES,
    r"constantofshape_int_shape_zero": _EMPTY,
    r"reduce_sum_empty_set_non_reduced_axis_zero": _EMPTY,
    r"reshape_allowzero_reordered": _EMPTY,
    r"shape_start_greater_than_end": _EMPTY,
    r"slice_start_out_of_bounds": _EMPTY,
    r"split_zero_size_splits_opset(13|18)": _EMPTY,
}
