"""The served model: preprocessing and scoring in one SavedModel."""
