"""Our TFX components: ingest, schema, gates, training, evaluation and push."""
