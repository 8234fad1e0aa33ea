"""`dragoman doctor`: asks a backend for what agents need, and reports what came.

Each probe is a call that walks the phases of every other call, so what is found is what clients will meet: text
and usage, late system messages, tool calls (offered, forced, two at once), a JSON schema, reasoning, the window, token
counting, and an end that comes at once when the client leaves. A finding names the setting that would help. The doctor
judges the server with the settings given and changes nothing.
"""

from dragoman.gateway.doctor.examine import examine, examine_all
from dragoman.gateway.doctor.finding import Finding
from dragoman.gateway.doctor.probes import CODEX_PROMPT
from dragoman.gateway.doctor.road import Road

__all__ = ["CODEX_PROMPT", "Finding", "Road", "examine", "examine_all"]
