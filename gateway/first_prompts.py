"""The tokens of an agent's first prompt (instructions, tools, environment): it works in no smaller window."""

CODEX_PROMPT = 4600  # measured with 0.169.0
CLAUDE_PROMPT = 19_500  # of Claude Code's, of which 24 tools take most, measured with 2.1.197
