"""Arguments and data that have a value per task."""

from tfpeft.core.arguments import are_class_weights, invalid, is_weight, unexpected


def joined(names):
    """Returns names as one text, for an error."""
    return ", ".join(map(str, names)) or "none"


def per_task(argument, value, tasks):
    """Returns {task: value} of such a dict, or of one value for all tasks; None for None.

    Raises:
        InputError: for a dict of other tasks; the message names `argument`.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        return dict.fromkeys(tasks, value)
    if set(value) != set(tasks):
        raise invalid(argument, f"a value for each of the tasks {joined(tasks)}", list(value))
    return {task: value[task] for task in tasks}


def check_tasks(what, by_task, tasks):
    """Raises unless data is a dict with all tasks."""
    if not isinstance(by_task, dict) or set(by_task) != set(tasks):
        received = joined(by_task) if isinstance(by_task, dict) else type(by_task).__name__
        raise unexpected(f"{what} of every task, a dict of {joined(tasks)}", received)
    for task, values in by_task.items():
        if values is None:
            raise unexpected(f"{what} of the task {task}", "none")


def check_loss_weights(loss_weights, tasks):
    """Returns {task: weight} of such a dict, or of one number for all tasks; None for None."""
    by_task = per_task("loss_weights", loss_weights, tasks)
    for task, weight in (by_task or {}).items():
        if not is_weight(weight):
            name = f"loss_weights[{task!r}]" if isinstance(loss_weights, dict) else "loss_weights"
            raise invalid(name, f"a number >= 0, or {{task: number}} of {joined(tasks)}", weight)
    return by_task


def check_class_weight(class_weight, tasks):
    """Raises unless `class_weight` is {task: {class number: weight}}."""
    is_nested = isinstance(class_weight, dict) and all(
        map(are_class_weights, class_weight.values())
    )
    if not is_nested or set(class_weight) - set(tasks):
        expected = f"{{task: {{class number: weight >= 0}}}} of the tasks {joined(tasks)}"
        raise invalid("class_weight", expected, class_weight)
