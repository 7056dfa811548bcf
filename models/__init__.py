"""Features to logits: one model a file, shared layers, the training loop and the export."""

import os

# TFT's layer is a legacy Keras layer: every model here is one too. Set before TensorFlow loads, and only here.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
