"""Asks for known vulnerabilities of everything that is locked: `python requirements/audit.py [OPTION OF pip-audit…]`.

The sources are asked in turn until one answers for every distribution; with options (`--vulnerability-service osv`)
only the named one is. pip-audit itself exits with 0 when it skipped every distribution because the source does not know
it, so its report decides: a distribution that it skipped was not audited.

Ends with 0 when everything was audited and nothing is known, 1 when something is, 3 when no source answered. Only what
this platform and Python would install is looked at. Runs in the environment of requirements/audit.txt.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = (("--vulnerability-service", "pypi"), ("--vulnerability-service", "osv"))
CLEAN, VULNERABLE, NOT_AUDITED = 0, 1, 3


class NotAudited(Exception):
    """The source did not answer for every distribution; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Audit:
    distributions: int
    vulnerabilities: tuple[str, ...]


def main(options: list[str]) -> int:
    lock_files = sorted((ROOT / "requirements").glob("*.txt"))
    reasons = []
    for source in (tuple(options),) if options else SOURCES:
        try:
            return _ask(source, lock_files)
        except NotAudited as failure:
            reasons.append(f"{' '.join(source)}: {failure}")
    print("NOT AUDITED: no source of advisories answered, so nothing is known about the locked versions.")
    for reason in reasons:
        print(f"  {reason}")
    return NOT_AUDITED


def _ask(source: tuple[str, ...], lock_files: list[Path]) -> int:
    found = False
    for path in lock_files:
        command = [sys.executable, "-m", "pip_audit", *source, "--disable-pip", "--require-hashes", "--format", "json"]
        command += ["--progress-spinner", "off", "--requirement", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        audit = read(done.stdout, done.stderr)
        print(f"{path.relative_to(ROOT)}: {audit.distributions} distributions", end=", ")
        print("known vulnerabilities:" if audit.vulnerabilities else "nothing known", flush=True)
        for line in audit.vulnerabilities:
            print(f"  {line}")
        found = found or bool(audit.vulnerabilities)
    return VULNERABLE if found else CLEAN


def read(report: str, errors: str) -> Audit:
    """What pip-audit reports; raises NotAudited unless the report is there and nothing was skipped."""
    try:
        dependencies = json.loads(report)["dependencies"]
    except ValueError:
        lines = errors.strip().splitlines() or ["pip-audit said nothing"]
        raise NotAudited(lines[-1][:300]) from None
    if not dependencies:
        raise NotAudited("the report is empty")
    skipped = [each for each in dependencies if "skip_reason" in each]
    if skipped:
        first = skipped[0]["skip_reason"]
        raise NotAudited(f"{len(skipped)} of {len(dependencies)} distributions were skipped: {first}")
    lines = [
        f"{each['name']} {each['version']}: {vulnerability['id']}, {_remedy(vulnerability['fix_versions'])}"
        for each in dependencies
        for vulnerability in each["vulns"]
    ]
    return Audit(len(dependencies), tuple(lines))


def _remedy(versions: list[str]) -> str:
    return f"fixed in {', '.join(versions)}" if versions else "no fixed version"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
