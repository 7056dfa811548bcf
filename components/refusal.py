"""A gate's no, as opposed to something that broke."""

from __future__ import annotations


class RefusedError(Exception):
    """The data or the model is not fit to go on. The message names the place and what to do next."""
