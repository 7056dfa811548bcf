"""Stands before a model server and splits a model's traffic between its `stable` and `canary` labels."""
