"""Mutants of how files of Keras 1 and 2 are translated."""

from mutant_lists.mutant import Mutant

_KERAS_1 = "loading/test_keras_1.py::"
_OLD = "loading/test_old_files.py::"

MUTANTS = (
    Mutant(
        "hard_sigmoid: that of Keras 3",
        "loading/old_functions.py",
        "keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)",
        "keras.ops.hard_sigmoid(x)",
        (f"{_KERAS_1}test_weights_of_each_gate_are_joined",),
    ),
    Mutant(
        "LSTM of Keras 1: gates in the order of the file",
        "loading/weight_layouts.py",
        '_ORDER = {"LSTM": ("i", "f", "c", "o")',
        '_ORDER = {"LSTM": ("i", "c", "f", "o")',
        (f"{_KERAS_1}test_weights_of_each_gate_are_joined",),
    ),
    Mutant(
        "cuDNN: one of the two biases",
        "loading/weight_layouts.py",
        'sum(bias) if kind == "LSTM"',
        'bias[0] if kind == "LSTM"',
        (f"{_OLD}test_cudnn_layers_become_usual_ones",),
    ),
    Mutant(
        "Theano: the kernel is not flipped",
        "loading/weight_layouts.py",
        "kernel = np.flip(kernel, sides)",
        "kernel = np.flip(kernel, ())",
        (f"{_KERAS_1}test_theano_convolves_where_others_correlate",),
    ),
    Mutant(
        "GRU: reset_after where the file does not say it",
        "loading/old_layers.py",
        'config.get("reset_after", False)',
        'config.get("reset_after", True)',
        (f"{_OLD}test_a_sequential_model_as_a_list_of_layers",),
    ),
    Mutant(
        "weights: by order where names say another",
        "loading/old_weights.py",
        "why = _assign([each], saved[name], keras_version, backend)",
        "why = _assign([each], [*saved.values()][[*layers].index(name)], keras_version, backend)",
        (f"{_OLD}test_weights_of_layers_in_another_order",),
    ),
)
