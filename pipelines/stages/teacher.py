"""The first stage of every run: the model that is given, or a default one that is trained."""

from pipelines.common import compilation, training
from pipelines.common.flags import MODEL_FLAGS
from pipelines.stages.default_models import default_model
from pipelines.stages.stage import Stage


def run(settings, inputs):
    """Returns the model of --model; without it a small one for the task, which is trained."""
    if inputs.model is not None:
        compilation.keep(inputs.folder, inputs.data.request.compilation)
        return inputs.model
    model = default_model(inputs.data)
    data, objective = inputs.data.for_model(model)
    training.fit(settings, model, data, objective)
    return model


def title(settings):
    """Returns what is printed when the stage begins: a teacher that was given is no --model."""
    if settings.model is None and "teacher" in settings.given:
        return "teacher: without --model a small network is trained, beside --teacher"
    return "teacher"


STAGE = Stage("teacher", MODEL_FLAGS, run, title=title)
