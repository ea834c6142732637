"""A Keras model as a .tflite file, and what such a file holds and computes. Row 3."""
