"""The feature table's consequences in TensorFlow: raw inputs, the TFT graph, and what models receive."""
