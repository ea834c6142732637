"""The reader of Keras's graph, on graphs that are known, and Keras's private names."""

import pathlib

import keras
import pytest

import tfpeft
from tests import networks
from tfpeft.core import graph
from tfpeft.core.arguments import InputError


def nested():
    """An inner model of two outputs, called twice, and an operation `+` after it."""
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    hidden = keras.layers.Dense(4, name="hidden")(keras.layers.Add(name="sum")([a, b]))
    gate = keras.layers.Dense(4, activation="sigmoid", name="gate")(hidden)
    inner = keras.Model({"a": a, "b": b}, {"gate": gate, "hidden": hidden}, name="inner")
    x = keras.Input((4,), name="x")
    first = inner({"a": x, "b": x})
    second = inner({"a": first["hidden"], "b": first["gate"]})
    total = second["hidden"] + x
    top = keras.layers.Dense(2, activation="softmax", name="top")(total)
    return keras.Model(x, {"top": top, "gate": second["gate"]}, name="outer"), inner


def names(operations):
    return [operation.name for operation in operations]


def test_keras_has_its_private_names():
    sequential = networks.sequential()
    functional, _ = nested()
    owners = {
        "_functional": sequential,
        "_nodes_by_depth": functional,
        "_inputs_struct": functional,
        "_keras_history": functional.inputs[0],
        "_inbound_nodes": functional.layers[0],
        "_outbound_nodes": functional.layers[0],
        "_flatten_layers": functional.layers[0],
    }
    assert set(owners) == set(graph.PRIVATE_NAMES)
    for name, owner in owners.items():
        assert hasattr(owner, name), f"Keras moved {name} of {type(owner).__name__}"
    with pytest.raises(AttributeError, match="Keras moved _functional of int; tfpeft tfpeft.core"):
        graph._private(3, "_functional")


def test_one_file_has_the_private_names():
    package = pathlib.Path(tfpeft.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text()
        assert "keras.src" not in text
        if path.name != "graph.py":
            assert [name for name in graph.PRIVATE_NAMES if f".{name}" in text] == [], path
            assert [name for name in graph.PRIVATE_NAMES if f'"{name}"' in text] == [], path


def test_calls_come_after_those_that_feed_them():
    outer, inner = nested()
    calls = graph.calls(outer)
    assert names(call.operation for call in calls)[:2] == ["inner", "inner"]
    made = {id(tensor) for tensor in outer.inputs}
    for call in calls:
        assert {id(tensor) for tensor in call.inputs} <= made
        made |= {id(tensor) for tensor in call.outputs}
    assert len(graph.calls(inner)) == 3
    assert names(call.operation for call in graph.calls(networks.sequential())) == [
        "hidden",
        "head",
    ]


def test_models_without_a_graph():
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    for model in (networks.subclassed(), unbuilt, keras.layers.Dense(2)):
        assert not graph.is_graph(model)
        for read in (graph.calls, graph.LayerGraph):
            with pytest.raises(InputError, match="`model`, expected a built functional"):
                read(model)
    assert graph.input_structure(networks.subclassed()) is None
    assert graph.input_structure(unbuilt) is None
    assert graph.output_keys(networks.subclassed()) == [None]
    assert graph.output_tensor(networks.subclassed(), None) is None
    assert graph.last_activation(networks.subclassed()) is None
    assert graph.is_graph(networks.sequential())


def test_the_origin_of_a_tensor():
    outer, inner = nested()
    made = graph.origin(outer.output["gate"])
    assert made.operation is inner
    assert made.index == 0  # of {"gate", "hidden"}
    assert graph.inner_output(made) is inner.output["gate"]
    assert [graph.origin(tensor).operation for tensor in made.inputs] == [inner, inner]
    assert [graph.origin(tensor).index for tensor in made.inputs] == [1, 0]
    top = graph.origin(outer.output["top"])
    assert (top.operation.name, graph.inner_output(top)) == ("top", None)


def test_inputs_and_outputs_in_their_structure():
    outer, inner = nested()
    assert graph.input_structure(outer) is outer.inputs[0]
    assert list(graph.input_structure(inner)) == ["a", "b"]
    assert graph.output_keys(outer) == ["top", "gate"]
    assert graph.output_tensor(outer, "gate") is outer.output["gate"]
    assert graph.output_tensor(outer, None) is None
    sequential = networks.sequential()
    assert graph.input_structure(sequential).shape == (None, 6)
    assert graph.output_keys(sequential) == [None]
    assert graph.output_tensor(sequential, "any") is sequential.outputs[0]
    x = keras.Input((2,))
    listed = keras.Model([x], [keras.layers.Dense(1)(x), keras.layers.Dense(2)(x)])
    assert graph.output_keys(listed) == [0, 1]
    assert type(graph.input_structure(listed)) is list
    assert graph.output_keys(keras.Model(x, {"only": keras.layers.Dense(1)(x)})) == [None]

    class Holder(keras.Model):
        input_structure = {"given": 1}

    assert graph.input_structure(Holder()) == {"given": 1}


def sequential(*layers):
    return keras.Sequential([keras.Input((4,)), *layers])


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([keras.layers.Dense(2)], "linear"),
        ([keras.layers.Dense(2, "softmax")], "softmax"),
        ([keras.layers.Dense(2), keras.layers.Softmax()], "softmax"),
        ([keras.layers.Dense(2), keras.layers.Activation("sigmoid")], "sigmoid"),
        ([keras.layers.Dense(2, "relu"), keras.layers.Reshape((2, 1))], "relu"),
        ([keras.layers.Dense(2, "relu"), keras.layers.Dropout(0.5)], "relu"),
        ([keras.layers.Dense(2), keras.layers.BatchNormalization()], "batchnormalization"),
        ([keras.layers.Reshape((2, 2))], "inputlayer"),
    ],
)
def test_the_last_activation(layers, expected):
    assert graph.last_activation(sequential(*layers)) == expected


def test_the_last_activation_in_nested_models():
    outer, inner = nested()
    assert graph.last_activation(outer, "top") == "softmax"
    assert graph.last_activation(outer, "gate") == "sigmoid"
    assert graph.last_activation(inner, "hidden") == "linear"
    x = keras.Input((2, 4))
    distributed = keras.layers.TimeDistributed(keras.layers.Dense(3, "tanh"))(x)
    assert graph.last_activation(keras.Model(x, distributed)) == "tanh"
    y = keras.Input((4,))
    assert graph.last_activation(keras.Model(y, keras.ops.softmax(y))) == "softmax"


def test_a_nested_model_that_changes_only_the_shape():
    """The activation is that of the layer before it, of the input that the output comes from."""
    a, b = keras.Input((4,)), keras.Input((4,))
    swap = keras.Model([a, b], [keras.layers.Reshape((2, 2))(b), keras.layers.Flatten()(a)])
    x = keras.Input((4,))
    first, second = keras.layers.Dense(4, "relu")(x), keras.layers.Dense(4, "tanh")(x)
    model = keras.Model(x, swap([first, second]))
    assert graph.last_activation(model, 0) == "tanh"
    assert graph.last_activation(model, 1) == "relu"


def test_who_feeds_whom():
    outer, inner = nested()
    layers = {layer.name: layer for layer in (*inner.layers, *outer.layers)}
    found = graph.LayerGraph(outer)
    feeds = {op.name: names(sources) for op, sources in found.producers.items()}
    add = graph.origin(layers["top"].input).operation
    assert feeds == {
        "sum": ["x", "hidden", "gate"],  # of both calls
        "hidden": ["sum"],
        "gate": ["hidden"],
        add.name: ["hidden", "x"],
        "top": [add.name],
    }
    consumers = {op.name: names(targets) for op, targets in found.consumers.items()}
    assert consumers == {
        "x": ["sum", add.name],
        "sum": ["hidden"],
        "hidden": ["gate", "sum", add.name],
        "gate": ["sum"],
        add.name: ["top"],
    }
    assert names(found.inputs) == ["x"]
    assert set(names(found.outputs)) == {"gate", "top"}
    assert names(found.layers) == ["sum", "hidden", "gate", "top"]
    assert found.models == [outer, inner]


def test_a_nested_model_called_with_a_mask():
    inner = keras.Sequential([keras.Input((3, 4)), keras.layers.Dense(2, name="inside")])
    x, mask = keras.Input((3, 4), name="x"), keras.Input((3,), dtype="bool", name="mask")
    model = keras.Model([x, mask], inner(x, mask=mask))
    found = graph.LayerGraph(model)
    assert {op.name: names(ops) for op, ops in found.producers.items()} == {"inside": ["x"]}


def test_layers_at_any_depth():
    outer, inner = nested()
    found = graph.flatten_layers(outer)
    assert found[0] is outer
    assert set(names(found)) == {
        "outer",
        "x",
        "inner",
        "a",
        "b",
        "sum",
        "hidden",
        "gate",
        "top",
    } | {operation.name for operation in outer.layers if "add" in operation.name}
    assert outer not in graph.flatten_layers(outer, include_self=False)
    assert inner.get_layer("gate") not in graph.flatten_layers(outer, recursive=False)
