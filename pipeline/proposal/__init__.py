"""A first config and schema for logs that nobody described yet: guesses, each with its reason."""

from pipeline.proposal.propose import Given, Proposal, propose

__all__ = ["Given", "Proposal", "propose"]
