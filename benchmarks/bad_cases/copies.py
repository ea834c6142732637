"""Bad inputs of what copies a model: adapters, `scale_width`, several tasks on one backbone."""

import keras

import tfpeft
from bad_cases import models, values
from bad_cases.case import Case, Made, bad_arguments
from bad_cases.values import NAN, x

SAVING = (*values.PATH, values.DIRECTORY)
CUSTOM = Made("a model without get_config", lambda: _without_config())


class Shifted(keras.Model):
    """A model that cannot be rebuilt: its argument is not in its configuration."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.head = keras.layers.Dense(units, name="hidden")

    def build(self, input_shape):
        self.head.build(input_shape)

    def call(self, inputs):
        return self.head(inputs)


def _without_config():
    model = Shifted(3)
    model(x())
    return model


def adapted(**options):
    return tfpeft.add_adapters(models.dense(), tfpeft.LoRA(2, **options))


def _method(method):
    """Returns a function that calls a method of an adapted model."""
    return lambda **arguments: getattr(adapted(), method)(**arguments)


def of_methods():
    """Arguments of adapters, which may raise when they are added to a model."""

    def added(make):
        return lambda **arguments: tfpeft.add_adapters(models.dense(), make(**arguments))

    bad = {"target": (3, [3], [None], True, {"hidden": 1})}
    cases = bad_arguments("AdapterMethod", tfpeft.AdapterMethod, dict, bad)
    low_rank = {
        "rank": values.COUNT,
        "alpha": values.POSITIVE,
        "dropout": values.FRACTION,
        "target": values.TARGET,
    }
    for name in ("LoRA", "DoRA"):
        bad = low_rank if name == "LoRA" else {"rank": (0, None, NAN), "alpha": (NAN, "1", 0.0)}
        cases += bad_arguments(name, added(getattr(tfpeft, name)), dict, bad)
    cases += bad_arguments(
        "BottleneckAdapter",
        added(tfpeft.BottleneckAdapter),
        dict,
        {
            "size": values.COUNT,
            "activation": ("nonsense", 3, [], ""),
            "target": ("no_such_layer", 3, ""),
        },
    )
    cases += bad_arguments(
        "IA3",
        added(tfpeft.IA3),
        dict,
        {"target": values.TARGET, "input_target": ("no_such_layer", 3, [3], "")},
    )
    for name in ("BitFit", "NormTuning"):
        bad = {"target": ("no_such_layer", 3, [None], "", [])}
        cases += bad_arguments(name, added(getattr(tfpeft, name)), dict, bad)
    cases.append(
        Case(
            "NormTuning() of a model without normalisation",
            lambda: added(tfpeft.NormTuning)(),
            ("ormali", "target"),
        )
    )
    return cases


def of_adapted_models():
    good = {"model": models.dense, "method": lambda: tfpeft.LoRA(2)}
    method = (
        None,
        3,
        "lora",
        [],
        Made("a class", lambda: tfpeft.LoRA),
        Made("a model", models.dense),
    )
    names = (3, "", [], True, 2.5)
    cases = bad_arguments(
        "add_adapters",
        tfpeft.add_adapters,
        lambda: {name: make() for name, make in good.items()},
        {
            "model": (*values.MODEL, *values.UNBUILT, CUSTOM),
            "method": method,
            "name": (*names, None),
        },
    )
    cases += bad_arguments(
        "AdaptedModel",
        tfpeft.AdaptedModel,
        lambda: {"model": models.dense(), "adapters": {"a": tfpeft.LoRA(2)}},
        {
            "model": (*values.MODEL, *values.UNBUILT),
            "adapters": (
                *(None, 3, "lora", [], {"a": None}, {"a": "lora"}, {"a": 3}),
                Made("a method", lambda: tfpeft.LoRA(2)),
                Made("{3: a method}", lambda: {3: tfpeft.LoRA(2)}),
                Made("{'': a method}", lambda: {"": tfpeft.LoRA(2)}),
            ),
            "active": ("no_such_adapter", 3, [], True),
        },
    )
    cases += bad_arguments(
        "merge_adapters",
        tfpeft.merge_adapters,
        lambda: {"model": adapted()},
        {
            "model": (*values.MODEL, Made("a model without adapters", models.dense)),
            "name": ("no_such_adapter", 3, [], ""),
        },
    )
    methods = {
        "use": {"name": ("no_such_adapter", 3, [], "")},
        "add": {"method": method, "name": ("default", "", 3, None)},
        "save_adapter": {"path": (*SAVING, "a.txt", "a.h5", "a"), "name": ("no_such", 3, [])},
    }
    for name, bad in methods.items():
        arguments = {
            "use": dict,
            "add": lambda: {"method": tfpeft.LoRA(2), "name": "second"},
            "save_adapter": lambda: {"path": "a.weights.h5"},
        }[name]
        cases += bad_arguments(
            f"AdaptedModel.{name}",
            _method(name),
            arguments,
            bad,
        )
    cases += bad_arguments(
        "trainable_summary",
        lambda model: tfpeft.trainable_summary(model),
        dict,
        {"model": values.MODEL},
    )
    return cases


def of_scale_width():
    return bad_arguments(
        "scale_width",
        tfpeft.scale_width,
        lambda: {"model": models.dense(), "width": 0.5},
        {
            "model": (*values.MODEL, *values.UNBUILT, CUSTOM),
            "width": (*values.POSITIVE, [0.5]),
        },
    )


def of_shared_models():
    def shared(**arguments):
        return tfpeft.SharedModel(**arguments)

    return bad_arguments(
        "SharedModel",
        shared,
        lambda: {"backbone": models.dense(), "heads": {"a": 3}},
        {
            "backbone": (*values.MODEL, *values.UNBUILT, CUSTOM),
            "heads": (
                *(None, 3, [], {}, "a", {"a": 0}, {"a": -1}, {"a": 1.5}, {"a": NAN}, {"a": True}),
                *({"a": None}, {"a": "3"}, {3: 3}, {"": 3}, {"a b": 3}, {"a/b": 3}, {None: 3}),
                Made("{'a': a head of two outputs}", lambda: {"a": models.two_outputs()}),
                Made("{'a': a head of another width}", lambda: {"a": models.dense(width=5)}),
                Made("one head for two", lambda: dict.fromkeys("ab", keras.layers.Dense(3))),
                Made("{'a': a tf_keras model}", lambda: {"a": models.tf_keras_model()}),
            ),
            "adapters": (
                *(3, "lora", [], {"b": None}, {"a": 3}, {"a": "lora"}),
                Made("a class", lambda: tfpeft.LoRA),
                Made("a target of no layer", lambda: tfpeft.LoRA(2, target="no_such_layer")),
            ),
            "pooling": (*values.CHOICE, "max", "mean", "first"),
            "output": ("no_such_output", 3, -2, [], True, NAN),
            "unfreeze": (3, [3], [None], "no_such_layer", ["hidden", "no_such_layer"], True),
            "learn_task_weights": values.FLAG,
        },
    )


def of_layers():
    return [
        Case(
            "merge_adapters(a bottleneck, which cannot be merged)",
            lambda: tfpeft.merge_adapters(
                tfpeft.add_adapters(models.dense(), tfpeft.BottleneckAdapter(2))
            ),
            ("merge", "Bottleneck", "adapter"),
        ),
        Case(
            "DoRA(rank=2, target=an Embedding)",
            lambda: tfpeft.add_adapters(_embedding(), tfpeft.DoRA(2, target="words")),
            ("target", "words"),
        ),
    ]


def _embedding():
    return keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(10, 4, name="words"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


def cases():
    return [
        *of_methods(),
        *of_adapted_models(),
        *of_scale_width(),
        *of_shared_models(),
        *of_layers(),
    ]
