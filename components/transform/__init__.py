"""The transform: TFT's analysis and its graph, on one machine over Arrow batches, elsewhere on Beam."""
