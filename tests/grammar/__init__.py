"""Checkers of whole answers, one module for each client protocol.

They are written from the published specifications and from what the real clients were seen to need, never from our own
code: a golden file freezes what is, a grammar says what must be. Each module offers `check_stream(body)`,
`check_response(obj)` and `check_error(status, body)`; each raises `Violation`, an AssertionError that names the rule
and the place (for streams the number of the event, counted from 0). A checker here must be strict: an unknown event or
an unknown key is an error, because "ignored by today's client" is how silent losses start.
"""

from tests.grammar.shapes import Violation

__all__ = ["Violation"]
