"""`dragoman doctor`: asks a backend for what agents need, says what came, and finds the settings that mend it.

Each probe is a call that walks the phases of every other call, so what is found is what clients will meet: text and
usage, late system messages, tool calls (offered, forced, two at once), a JSON schema, reasoning, the window, token
counting, and an end that comes at once when the client leaves. Around them stand questions to the server itself: its
address, its key, its kind, and whether it streams. A setting is proposed only after the same probe was `ok` with it.

    run → examine → address, recognise, subjects → model_examination → treatment → probes
                                                                     ↘ remedies, trial
"""

from dragoman.gateway.doctor.run import Wanted, run

__all__ = ["Wanted", "run"]
