"""Where interaction logs come from when there are none yet: a public data set, and a generator."""
