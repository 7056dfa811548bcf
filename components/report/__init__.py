"""The page of a run: may it serve, why, where is it weak, what changed, is the data healthy."""
