"""What models share that rank all items for a user: who met what, negatives, rows to train on, sequences."""
