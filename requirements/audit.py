"""Asks for known vulnerabilities of everything that is locked: `python requirements/audit.py [OPTION OF pip-audit…]`.

The sources are asked in turn until one answers for every distribution; with options (`--vulnerability-service osv`)
only the named one is. pip-audit itself exits with 0 when it skipped every distribution because the source does not know
it, so its report decides: a distribution that it skipped was not audited.

Ends with 0 when everything was audited and nothing is known, 1 when a vulnerability is, 3 when no source answered for
everything. Only what this platform and Python would install is looked at. Runs in the environment of
requirements/audit.txt.
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
ANSWER_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Audit:
    """What a source says of one lock file; `missing` is why it does not cover every distribution, or empty."""

    looked_up: int
    vulnerabilities: tuple[str, ...]
    missing: str = ""


def main(options: list[str]) -> int:
    lock_files = sorted((ROOT / "requirements").glob("*.txt"))
    reasons = []
    found = False
    for source in (tuple(options),) if options else SOURCES:
        for path in lock_files:
            audit = ask(source, path)
            found = found or bool(audit.vulnerabilities)
            _show(path, audit)
            if audit.missing:
                reasons.append(f"{' '.join(source)}: {path.name}: {audit.missing}")
                break
        else:
            return VULNERABLE if found else CLEAN
    print("NOT AUDITED: no source of advisories answered for everything that is locked.")
    for reason in reasons:
        print(f"  {reason}")
    return VULNERABLE if found else NOT_AUDITED


def _show(path: Path, audit: Audit) -> None:
    if audit.looked_up:
        verdict = "known vulnerabilities:" if audit.vulnerabilities else "nothing known"
        print(f"{path.relative_to(ROOT)}: {audit.looked_up} distributions, {verdict}", flush=True)
    for line in audit.vulnerabilities:
        print(f"  {line}")


def ask(source: tuple[str, ...], path: Path) -> Audit:
    command = [sys.executable, "-m", "pip_audit", *source, "--disable-pip", "--require-hashes", "--format", "json"]
    command += ["--progress-spinner", "off", "--requirement", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Audit(0, (), f"no answer within {ANSWER_SECONDS} seconds")
    return read(done.stdout, done.stderr)


def read(report: str, errors: str) -> Audit:
    """`report` is what pip-audit writes as JSON; it is empty where the source failed."""
    try:
        dependencies = json.loads(report)["dependencies"]
    except ValueError:
        lines = errors.strip().splitlines() or ["pip-audit said nothing"]
        return Audit(0, (), lines[-1][:300])
    looked_up = [each for each in dependencies if "skip_reason" not in each]
    skipped = [each["skip_reason"] for each in dependencies if "skip_reason" in each]
    missing = f"{len(skipped)} of {len(dependencies)} distributions were skipped: {skipped[0]}" if skipped else ""
    lines = [
        f"{each['name']} {each['version']}: {vulnerability['id']}, {_remedy(vulnerability['fix_versions'])}"
        for each in looked_up
        for vulnerability in each["vulns"]
    ]
    return Audit(len(looked_up), tuple(lines), missing if dependencies else "the report is empty")


def _remedy(versions: list[str]) -> str:
    return f"fixed in {', '.join(versions)}" if versions else "no fixed version"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
