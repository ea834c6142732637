"""Training on several machines that hold the same weights: a strategy of tf.distribute. Row 2."""
