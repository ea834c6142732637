"""`keras_metadata.pb` of a SavedModel folder: the configuration that Keras 2 writes beside it.

The file is a protocol buffer: a list of objects, of which each has an identifier and a text in
JSON. The first one is the model.
"""

from tfpeft.loading.old_json import decode

_FILE = "keras_metadata.pb"
_MODELS = ("_tf_keras_model", "_tf_keras_network", "_tf_keras_sequential")
_NODES, _IDENTIFIER, _METADATA = 1, 4, 5  # numbers of the fields


def keras_config(folder):
    """Returns {"class_name", "config", "training_config", "keras_version"} of a folder's model.

    None if there is none. `config` is None for a model of a class written by hand.
    """
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        for field, node in _fields(path.read_bytes()):
            if field == _NODES:
                found = dict(_fields(node))
                if found.get(_IDENTIFIER, b"").decode() in _MODELS:
                    return _configuration(decode(found[_METADATA]))
    except (ValueError, IndexError, KeyError, UnicodeDecodeError):
        pass  # damaged; the graph is whole without it
    return None


def _configuration(metadata):
    config = metadata.get("config")
    is_whole = isinstance(config, dict) and "layers" in config
    return {
        "class_name": metadata["class_name"],
        "config": config if is_whole else None,
        "training_config": metadata.get("training_config"),
        "keras_version": metadata.get("keras_version", "2"),
    }


def _fields(buffer):
    """Yields the numbers and contents of the fields of a protocol buffer."""
    place = 0
    while place < len(buffer):
        key, place = _number(buffer, place)
        kind = key & 7
        if kind == 0:
            value, place = _number(buffer, place)
        elif kind == 2:
            length, place = _number(buffer, place)
            value, place = buffer[place : place + length], place + length
        else:
            length = {1: 8, 5: 4}[kind]
            value, place = buffer[place : place + length], place + length
        yield key >> 3, value


def _number(buffer, place):
    """Returns a number of 7 bits a byte, and the place after it."""
    number, shift = 0, 0
    while True:
        byte = buffer[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
        shift += 7
