"""A .tflite file as C code: an aligned array that firmware links."""

import os
import pathlib
import re

from tfpeft.core.arguments import invalid, unexpected
from tfpeft.core.files import replacing
from tfpeft.core.paths import file_to_write, invalid_path
from tfpeft.export.tflite_file import TFLiteFile

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ENDINGS = {".c": "_Alignas", ".cc": "alignas", ".cpp": "alignas"}
_KEYWORDS = frozenset(
    (
        *("alignas", "alignof", "and", "asm", "auto", "bool", "break", "case", "catch", "char"),
        *("class", "const", "continue", "default", "delete", "do", "double", "else", "enum"),
        *("extern", "false", "float", "for", "goto", "if", "inline", "int", "long", "namespace"),
        *("new", "not", "nullptr", "operator", "or", "private", "protected", "public"),
        *("register", "restrict", "return", "short", "signed", "sizeof", "static"),
        *("struct", "switch", "template", "this", "throw", "true", "try", "typedef"),
        *("typename", "union", "unsigned", "using", "virtual", "void", "volatile"),
        *("while", "xor"),
    )
)
_ROW = 12  # bytes in a line


def export_c_array(
    path: str | os.PathLike, c_path: str | os.PathLike | None = None, *, name: str | None = None
) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes a .tflite file as a C array and its header, for firmware without a file system.

    The source has `alignas(16) const unsigned char NAME[]` and `const unsigned int NAME_len`, the
    header declares both. They are read back and compared before they replace older ones. In C++
    the constants have C linkage, so that a .c file and a .cc file can be linked with either.

    What it does not give: a smaller file. The array takes as many bytes of flash as the file, the
    labels in it too; see `describe_tflite` with target="tflm" for one that is compressed.

    Args:
        path: The .tflite file.
        c_path: The source: a path that ends in .cc, .cpp (C++11) or .c (C11); None is that of
            the file, with .cc. The header goes beside it, with .h.
        name: The name of the array, a C identifier; None makes it of the file's.

    Returns:
        The paths of the source and of the header.

    Raises:
        InputError: if `path` is no .tflite file, `c_path` has another ending, or `name` is no
            identifier of C.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    tfpeft.export_tflite(model, "model.tflite")
    source, header = tfpeft.export_c_array("model.tflite", name="g_model")
    print(header.read_text())
    ```
    """
    file = TFLiteFile(path)
    source = file_to_write(file.path.with_suffix(".cc") if c_path is None else c_path, "`c_path`")
    if source.suffix not in _ENDINGS:
        raise invalid_path("`c_path`", f"a path that ends in {', '.join(_ENDINGS)}", source)
    name = _identifier(file.path.stem) if name is None else name
    is_identifier = isinstance(name, str) and _IDENTIFIER.fullmatch(name) is not None
    if not is_identifier or name in _KEYWORDS:
        raise invalid("name", "an identifier of C, which is no keyword", name)
    header = source.with_suffix(".h")
    with replacing(header, "`c_path`") as partial_header, replacing(source, "`c_path`") as partial:
        partial_header.write_text(_header(name, len(file.content)))
        partial.write_text(_source(name, file.content, header.name, _ENDINGS[source.suffix]))
        if parse_c_array(partial.read_text(), name) != file.content:
            raise unexpected("the bytes of the file in the array", f"others in {partial}")
    return source, header


def parse_c_array(text, name):
    """Returns the bytes of the array `name` in C code."""
    found = re.search(rf"\b{name}\[\w*\] = \{{([^}}]*)\}}", text)
    numbers = re.findall(r"0x([0-9a-f]{2})\b", found[1]) if found else []
    return bytes.fromhex("".join(numbers))


def _identifier(stem):
    """Returns a C identifier made of the name of a file."""
    name = re.sub(r"\W", "_", stem, flags=re.ASCII)
    return name if _IDENTIFIER.fullmatch(name) and name not in _KEYWORDS else f"model_{name}"


def _header(name, size):
    guard = f"{name.upper()}_H_"
    return (
        f"// A .tflite file of {size:,} bytes.\n"
        f"#ifndef {guard}\n#define {guard}\n\n"
        '#ifdef __cplusplus\nextern "C" {\n#endif\n\n'
        f"extern const unsigned char {name}[];\n"
        f"extern const unsigned int {name}_len;\n\n"
        "#ifdef __cplusplus\n}\n#endif\n\n"
        f"#endif  // {guard}\n"
    )


def _source(name, content, header, alignas):
    rows = (content[start : start + _ROW] for start in range(0, len(content), _ROW))
    lines = "\n".join(f"    {' '.join(f'0x{byte:02x},' for byte in row)}" for row in rows)
    return (
        f'#include "{header}"\n\n'
        f"{alignas}(16) const unsigned char {name}[] = {{\n{lines}\n}};\n"
        f"const unsigned int {name}_len = {len(content)};\n"
    )
