"""A model server with TensorFlow Serving's protocols, flags, config files and error messages."""
