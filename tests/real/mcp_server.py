"""A stdio MCP server with one tool for agents to start; of the standard library alone.

The tool is `add`; with a file as argument it is `weather`, and each city that it is called for becomes a line there.
`mcp_server` gives the lines of Codex's configuration that name it; run as a program, this file is the server.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.real.codex import Codex

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a"]}
ADD = {"name": "add", "description": "Adds two numbers.", "inputSchema": SCHEMA}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "The weather in a city.", "inputSchema": CITY}


def mcp_server(codex: "Codex", *arguments: str) -> str:
    program, *rest = command(codex.home, *arguments)
    return f"\n[mcp_servers.demo]\ncommand = {json.dumps(program)}\nargs = {json.dumps(rest)}\n"


def command(folder: Path, *arguments: str) -> list[str]:
    """The file is copied, so that the server runs outside the sources."""
    script = folder / "server.py"
    script.write_bytes(Path(__file__).read_bytes())
    return [sys.executable, str(script), *arguments]


def weather(city: str, called: str) -> str:
    with open(called, "a", encoding="utf-8") as lines:
        lines.write(f"{city}\n")
    return f"sunny in {city}"


def answer(method: str, params: Any, called: str = "") -> Any:
    if method == "initialize":
        info = {"name": "demo", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return {"tools": [WEATHER if called else ADD]}
    if method == "tools/call":
        given = params["arguments"]
        text = weather(given["city"], called) if called else f"the sum is {given['a'] + given['b']}"
        return {"content": [{"type": "text", "text": text}], "isError": False}
    return {}


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" in asked:
            result = answer(asked["method"], asked.get("params") or {}, *sys.argv[1:])
            print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)


if __name__ == "__main__":
    main()
