"""A stdio MCP server with one tool, `add`, for Codex to start; of the standard library alone.

`mcp_server` gives the lines of Codex's configuration that name it; run as a program, this file is the server.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.real.codex import Codex

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a"]}


def mcp_server(codex: "Codex") -> str:
    """The file is copied, so that the server runs outside the sources."""
    script = codex.home / "server.py"
    script.write_bytes(Path(__file__).read_bytes())
    return f"\n[mcp_servers.demo]\ncommand = {json.dumps(sys.executable)}\nargs = [{json.dumps(str(script))}]\n"


def answer(method: str, params: Any) -> Any:
    if method == "initialize":
        info = {"name": "demo", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return {"tools": [{"name": "add", "description": "Adds two numbers.", "inputSchema": SCHEMA}]}
    if method == "tools/call":
        total = params["arguments"]["a"] + params["arguments"]["b"]
        return {"content": [{"type": "text", "text": f"the sum is {total}"}], "isError": False}
    return {}


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" in asked:
            result = answer(asked["method"], asked.get("params") or {})
            print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)


if __name__ == "__main__":
    main()
