"""From scores to the best few items: search of vectors, the catalogue, and the signature that puts both to use."""

RECOMMEND = "recommend"  # the signature
