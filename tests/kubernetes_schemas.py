"""Kubernetes manifests rendered by the real kubectl and held against the schemas that packages publish.

Core kinds: the strict JSON schemas of `kubernetes-validate`, which refuse unknown fields. Custom resources: the models
of `@kubernetes-models`, twice, because their validators know patterns but not unknown fields, and their type
declarations the reverse. A kind that nobody publishes a schema for is left out and must be named by the caller.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

# The packages' folder of each custom resource.
MODELS = {
    "HTTPRoute": "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute",
    "ServiceMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor",
}
WITHOUT_SCHEMA = frozenset({"InferencePool"})
TSC = ("--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--moduleResolution", "nodenext")

CORE_PROGRAM = """
import json, sys
import kubernetes_validate
for manifest in json.load(sys.stdin):
    try:
        kubernetes_validate.validate(manifest, sys.argv[1], strict=True)
    except kubernetes_validate.ValidationError as error:
        path = ".".join(str(step) for step in error.path)
        print(f"{manifest['kind']}: {path}: {error.message}")
    except kubernetes_validate.SchemaNotFoundError:
        print(f"{manifest['kind']}: no schema")
"""


def render(kubectl: str | Path, folder: Path) -> list[Manifest]:
    done = subprocess.run(
        [str(kubectl), "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr  # where kustomize says what is deprecated
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def is_core(manifest: Manifest) -> bool:
    return manifest["kind"] not in MODELS and manifest["kind"] not in WITHOUT_SCHEMA


def core_errors(python: Path, manifests: list[Manifest], version: str) -> list[str]:
    """One line for each manifest that Kubernetes of that version would refuse or change."""
    return _lines([str(python), "-c", CORE_PROGRAM, version], json.dumps(manifests))


def custom_errors(packages: Path, manifests: list[Manifest], scratch: Path) -> list[str]:
    """`packages` is the folder `node_modules`."""
    link = scratch / "node_modules"
    if not link.exists():
        link.symlink_to(packages, target_is_directory=True)
    checks, types = [], []
    for place, manifest in enumerate(manifests):
        kind, text = manifest["kind"], json.dumps(manifest)
        checks.append(
            f'import {{ {kind} as Kind{place} }} from "{MODELS[kind]}";\n'
            f"try {{ new Kind{place}({text}).validate(); }} catch (error) {{ console.log(`{kind}: ${{error}}`); }}"
        )
        types.append(
            f'import type {{ I{kind} as Kind{place} }} from "{MODELS[kind]}";\nconst a{place}: Kind{place} = {text};'
        )
    (scratch / "values.mjs").write_text("\n".join(checks), "utf-8")
    (scratch / "names.mts").write_text("\n".join(types), "utf-8")
    tsc = str(packages / ".bin" / "tsc")
    return _lines(["node", str(scratch / "values.mjs")]) + _lines([tsc, *TSC, str(scratch / "names.mts")], ends=(0, 2))


def _lines(command: list[str], given: str = "", ends: tuple[int, ...] = (0,)) -> list[str]:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in ends, done.stdout + done.stderr
    return done.stdout.splitlines()
