"""TFMA over candidate, baselines and the model last blessed; gates on the result; a verdict that says why."""
