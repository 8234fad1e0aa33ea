"""A server's or a client's text that may hold a prompt, marked where it is logged: the logger leaves it out unless the
operator has asked for it (`log.prompts`). Marking it is all that the code that logs it has to do.
"""

from __future__ import annotations


class Sensitive(str):
    """Text that the gateway did not write itself."""

    __slots__ = ()
