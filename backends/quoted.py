"""Words of a server or a client that may hold a prompt: marked where they are logged, so that the logger can leave them
out unless the operator asked for them (`log.prompts`). Whoever logs such words marks them; nothing else is needed.
"""

from __future__ import annotations


class Quoted(str):
    """Text that is somebody else's."""

    __slots__ = ()
