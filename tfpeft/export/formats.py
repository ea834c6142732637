"""The quantizations of a file, and the types that its inputs and outputs may have in each."""

from tfpeft.core.arguments import check_choice, unexpected

_TYPES = {
    "none": ("float32",),
    "dynamic_range": ("float32",),
    "float16": ("float32",),
    "int4_embeddings": ("float32",),
    "int4_weights": ("float32",),
    "int8": ("float32", "int8", "uint8"),
    "int16x8": ("float32", "int16"),
}
QUANTIZATIONS = tuple(_TYPES)
CALIBRATED = ("int8", "int16x8")
"""Quantizations whose activations are integers, with ranges that samples give."""
INT4 = {
    "int4_embeddings": ("EMBEDDING_LOOKUP",),
    "int4_weights": ("EMBEDDING_LOOKUP", "FULLY_CONNECTED"),
}
"""{quantization: operators whose weights have 4 bits}."""
FROM_FLOAT = (*INT4, *CALIBRATED)
"""Quantizations of a file that the converter writes in float32."""


def check_types(quantization, input_type, output_type):
    """Raises unless files of that quantization can have inputs and outputs of these types."""
    every = tuple(dict.fromkeys(name for types in _TYPES.values() for name in types))
    for argument, name in {"input_type": input_type, "output_type": output_type}.items():
        check_choice(argument, name, every)
        if name not in _TYPES[quantization]:
            having = next(q for q, types in _TYPES.items() if name in types)
            raise unexpected(
                f"`{argument}` of {' or '.join(map(repr, _TYPES[quantization]))} with "
                f"quantization={quantization!r}, or quantization={having!r}",
                f"{argument}={name!r}",
            )
