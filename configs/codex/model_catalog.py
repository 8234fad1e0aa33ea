"""Writes a model catalogue for Codex: `python3 model_catalog.py NAME --context-window TOKENS > FILE`.

Codex accepts no entry without instructions, and an entry's instructions replace Codex's whole system prompt. So
the entry is derived from the catalogue of the Codex that is installed (`codex debug models`): the newest model that
is offered plain tools lends its prompt and its patch tool. Left out is what belongs to that model's vendor: service
tiers, reasoning levels, verbosity, notices, a compaction of its own, and the search for tools, which a model must have
learned. Reads nothing else; needs no packages.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

VENDORS = (
    "additional_speed_tiers",
    "availability_nux",
    "comp_hash",
    "default_reasoning_level",
    "default_service_tier",
    "default_verbosity",
    "model_specialty",
    "service_tiers",
    "upgrade",
)


def derive(catalogue: dict[str, Any], name: str, window: int, *, images: bool = False) -> dict[str, Any]:
    """A catalogue with one entry. `window` counts tokens, prompt and answer together."""
    plain = [each for each in catalogue["models"] if not each.get("use_responses_lite") and not each.get("tool_mode")]
    if not plain:
        raise SystemExit("this Codex knows no model with plain tools; leave model_catalog_json out")
    entry = {key: value for key, value in plain[0].items() if key not in VENDORS}
    entry |= {
        "slug": name,
        "display_name": name,
        "description": "",
        "visibility": "list",
        "context_window": window,
        "max_context_window": window,
        "input_modalities": ["text", "image"] if images else ["text"],
        "supported_reasoning_levels": [],
        "support_verbosity": False,
        "supports_search_tool": False,
        "apply_patch_tool_type": "freeform",
    }
    return {"models": [entry]}


def own_catalogue(codex: str) -> dict[str, Any]:
    """Runs with an empty home, since the configuration may already name the file that is only being written."""
    with tempfile.TemporaryDirectory() as home:
        command = [codex, "debug", "models"]
        environment = {**os.environ, "CODEX_HOME": home}
        listing = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    catalogue: dict[str, Any] = json.loads(listing.stdout)
    return catalogue


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="as in `model` of config.toml")
    parser.add_argument("--context-window", type=int, required=True, metavar="TOKENS")
    parser.add_argument("--images", action="store_true", help="the model can see images")
    parser.add_argument("--codex", default="codex", metavar="PROGRAM")
    options = parser.parse_args()
    catalogue = derive(own_catalogue(options.codex), options.name, options.context_window, images=options.images)
    json.dump(catalogue, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
