"""Training: the loop, worker processes, what they share, and the checkpoints. Importing it loads no framework."""
