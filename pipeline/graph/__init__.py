"""The graph of a config: built, as a file for orchestrators, as a picture, and as other systems take it."""
