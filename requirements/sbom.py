"""Writes a bill of materials in CycloneDX: `python requirements/sbom.py LOCK_FILE PYTHON OUTPUT`.

It lists what LOCK_FILE installs on this platform, each with name, version, package URL, licence and the hashes of its
published files. cyclonedx-py reads the lock file and the environment of PYTHON, which may hold more than is locked.
This module puts the two together, because only the lock file has hashes and only the environment has licences.

The same lock file and interpreter give the same bytes: there is no serial number and no time in it. A distribution that
is locked and not installed, or installed in another version, is an error, so that no bill lists what was not looked at.
Runs in the environment of requirements/sbom.txt. The base image of a container and its system packages are not covered.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parents[1]
VERSION = SchemaVersion.V1_6
Bill = dict[str, Any]
Versions = dict[NormalizedName, str]


class Failed(Exception):
    """There is no bill; the message is the reason."""


def main(lock_file: str, python: str, output: str) -> int:
    try:
        locked = applicable(Path(lock_file).read_text("utf-8"))
        bill = merged(
            locked,
            installed=_cyclonedx("environment", "--pyproject", str(ROOT / "pyproject.toml"), python),
            offered=_cyclonedx("requirements", lock_file),
            licences=_declared_licences(python),
        )
        text = json.dumps(bill, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        if errors := JsonStrictValidator(VERSION).validate_str(text):
            raise Failed(f"not valid CycloneDX: {errors}")
    except Failed as failure:
        print(f"no bill of materials for {lock_file}: {failure}", file=sys.stderr)
        return 1
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Path(output).write_text(text, "utf-8")
    print(f"{output}: {len(locked)} distributions")
    return 0


def applicable(lock: str) -> Versions:
    """Name → version of what the lock file installs on this platform and Python."""
    entries = [line.removesuffix("\\") for line in lock.splitlines() if line[:1].isalnum()]
    requirements = [Requirement(entry) for entry in entries]
    return {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each in requirements
        if each.marker is None or each.marker.evaluate()
    }


def merged(locked: Versions, installed: Bill, offered: Bill, licences: dict[NormalizedName, str]) -> Bill:
    """The bill `installed`, less what is not locked, with the hashes of `offered` and licences in free text."""
    components = {canonicalize_name(each["name"]): each for each in installed["components"]}
    found = {name: components[name]["version"] for name in locked if name in components}
    if wrong := sorted(locked.items() - found.items()):
        raise Failed("not installed: " + ", ".join(f"{name} {version}" for name, version in wrong))
    published = {(canonicalize_name(each["name"]), each["version"]): each for each in offered["components"]}
    kept = []
    for name, version in sorted(locked.items()):
        component = components[name]
        # Which extras are asked for depends on what else is installed; where it came from, on the machine.
        component.pop("properties", None)
        component |= {key: published[name, version][key] for key in ("externalReferences", "purl")}
        if "licenses" not in component and name in licences:
            component["licenses"] = [{"license": {"acknowledgement": "declared", "name": licences[name]}}]
        kept.append(component)
    references = {each["bom-ref"] for each in (*kept, installed["metadata"]["component"])}
    dependencies = [
        each | {"dependsOn": [other for other in each.get("dependsOn", []) if other in references]}
        for each in installed["dependencies"]
        if each["ref"] in references
    ]
    return installed | {"components": kept, "dependencies": dependencies}


def _cyclonedx(*arguments: str) -> Bill:
    options = ["--output-reproducible", "--no-validate", "--of", "JSON", "--sv", VERSION.to_version()]
    command = [sys.executable, "-m", "cyclonedx_py", arguments[0], *options, *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise Failed(f"cyclonedx-py {arguments[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    bill: Bill = json.loads(done.stdout)
    return bill


def _declared_licences(python: str) -> dict[NormalizedName, str]:
    """The licences that are no identifiers of SPDX, which cyclonedx-py leaves out."""
    packages = [str(path) for path in Path(python).parents[1].glob("lib/python3*/site-packages")]
    return {
        canonicalize_name(each.name): each.metadata["License"].splitlines()[0]
        for each in distributions(path=packages)
        if each.metadata["License"]
    }


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python requirements/sbom.py LOCK_FILE PYTHON OUTPUT")
    sys.exit(main(*sys.argv[1:]))
