"""What architectures are built of: embedding tables, the deep part, hidden ids, and what makes up a logit."""
