"""How well the best few of all items are chosen for each user: full-catalogue metrics, never sampled ones."""
