"""Text with a vocabulary."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.features.text import Text


class Vocabulary(Text):
    """Text looked up in a vocabulary made from the training split."""

    EXAMPLE = 'genres: {kind: vocabulary, of: item, separator: "|", top: 1000, min_count: 2, oov: 4}'

    kind: Literal["vocabulary"]
    top: int | None = Field(default=None, ge=1, description="Keep only the most frequent values.")
    min_count: int = Field(default=1, ge=1, description="Keep only values seen this often in the training split.")
    oov: int = Field(default=1, ge=1, description="Hash buckets shared by values outside the vocabulary.")
