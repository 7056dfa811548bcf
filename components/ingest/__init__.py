"""Interaction logs to tf.train.Examples: read with Arrow, checked row by row, split, counted and catalogued."""
