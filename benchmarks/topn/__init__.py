"""Models that rank all items: how good they are on MovieLens-100K, and how fast they train."""
