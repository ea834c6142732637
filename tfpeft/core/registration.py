"""Registration with Keras: a class loads from saved files under its name and its old names."""

import keras

PACKAGE = "tfpeft"


def register(*old_names):
    """Returns a decorator that registers a class as `tfpeft>Name`, and under names it had before.

    Files that an older version saved name the class as it was called then; they load as the class
    of today, which writes its new name.
    """

    def decorate(cls):
        keras.saving.register_keras_serializable(package=PACKAGE)(cls)
        for name in old_names:
            keras.saving.get_custom_objects()[f"{PACKAGE}>{name}"] = cls
        return cls

    return decorate
