"""Bad inputs of `recommend`: goals, targets, tasks, data that the model does not take."""

import tfpeft
from bad_cases import models, values
from bad_cases.case import bad_arguments
from bad_cases.values import x, y


def cases():
    """Returns the cases of the group."""

    def good():
        return {
            "model": models.compiled(),
            "data": (x(), y()),
            "goal": "size",
            "minutes": 1,
            "steps": 2,
            "techniques": ["quantize"],
            "verbose": False,
        }

    def of_memory():
        return {**good(), "goal": "memory"}

    def of_tasks():
        pair = x(), y()
        return {
            **good(),
            "data": None,
            "goal": "tasks",
            "techniques": None,
            "tasks": {"a": pair, "b": pair},
        }

    data = (*values.LABELLED[1:], *values.CLASSES)
    return [
        *bad_arguments(
            "recommend",
            tfpeft.recommend,
            good,
            {
                "model": (*values.MODEL, *values.UNBUILT),
                "data": (None, *data),
                "goal": (*values.CHOICE, None),
                "target": (*values.CHOICE, "ethos-u55"),
                "minutes": values.POSITIVE,
                "validation_data": data,
                "tasks": (3, {}, {"a": 3}, []),
                "folder": values.PATH[:1],
                "max_metric_loss": (*values.NOT_A_NUMBER, values.INF, -0.1, True, None),
                "techniques": (*values.CHOICE, [], ["lora"], [3]),
                "task": values.CHOICE,
                "from_logits": values.FLAG,
                "steps": tuple(value for value in values.COUNT if value is not None),
                "batch_size": values.COUNT,
                "learning_rate": values.POSITIVE,
                "seed": values.SEED,
                "verbose": (*values.FLAG, None),
            },
        ),
        *bad_arguments(
            "recommend, memory", tfpeft.recommend, of_memory, {"target": (None, "xnnpack")}
        ),
        *bad_arguments(
            "recommend, tasks",
            tfpeft.recommend,
            of_tasks,
            {
                "tasks": (None, 3, {}, {"a": (x(), y())}, {"a": 3, "b": 3}, [(x(), y())] * 2),
                "data": ((x(), y()),),
                "target": ("xnnpack",),
                "validation_data": (3, {"a": (x(), y())}),
            },
        ),
    ]
