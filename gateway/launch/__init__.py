"""`dragoman launch codex|claude|opencode`: the real client, pointed at a gateway, with nothing of the user's changed.

The client gets its base URL, the model and the model's true window in the words that it obeys, for one run: by its
command line, its environment and a temporary folder. What it would send to others than its model (plugins, analytics)
is off. `--write` puts the same into the user's own files, `--undo` takes it out again.
"""

from dragoman.gateway.launch.run import Launch, launch

__all__ = ["Launch", "launch"]
