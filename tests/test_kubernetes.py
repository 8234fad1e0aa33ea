"""The Kubernetes files: rendered by the real kubectl, valid to the last field, and true to the gateway they run.

What no schema knows is checked here too: that probes, ports, users and times fit the container and the configuration
inside, that nothing names what is not there, and that the model server outlives the drain.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dragoman.backends.registry import SCHEMES
from dragoman.gateway import __version__
from dragoman.gateway.cli import main
from dragoman.gateway.keys.auth import OPEN_PATHS
from dragoman.gateway.serve.server import LAST_WORDS
from tests.conftest import RealComponent
from tests.container_build import read
from tests.exported_metrics import exported
from tests.kubernetes_schemas import (
    MODELS,
    WITHOUT_SCHEMA,
    Manifest,
    core_errors,
    custom_errors,
    is_core,
    render,
)

ROOT = Path(__file__).parents[1]
HOME = ROOT / "configs" / "kubernetes"
OVERLAYS = ["base", "inferencepool", "ingress", "sidecar-triton", "sidecar-trtllm-serve"]
SIDECARS = ["sidecar-triton", "sidecar-trtllm-serve"]
# The first one with containers that go on running beside the pod's own and are ended after them; and the newest.
VERSIONS = ["1.29", "1.37"]
GRACE = 5.0  # what the gateway itself waits after SIGTERM, where the configuration says nothing
MARGIN = 5.0
DOCKERFILE = {each.name: each.value for each in read((ROOT / "Dockerfile").read_text("utf-8"))}

pytestmark = pytest.mark.real

Rendered = dict[str, list[Manifest]]


@pytest.fixture(scope="module")
def rendered(real_component: RealComponent) -> Rendered:
    kubectl = real_component("operations").with_name("kubectl")
    return {overlay: render(kubectl, HOME / overlay) for overlay in OVERLAYS}


def one(manifests: list[Manifest], kind: str) -> Any:
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def pod(manifests: list[Manifest]) -> Any:
    return one(manifests, "Deployment")["spec"]["template"]["spec"]


def dragoman(manifests: list[Manifest]) -> Any:
    (found,) = [container for container in pod(manifests)["containers"] if container["name"] == "dragoman"]
    return found


def configuration(manifests: list[Manifest]) -> Any:
    return yaml.safe_load(one(manifests, "ConfigMap")["data"]["gateway.yaml"])


# -------------------------------------------------------------------------------------------------- rendering, schemas


def test_every_folder_is_an_overlay_that_is_tested() -> None:
    assert sorted(path.name for path in HOME.iterdir()) == OVERLAYS


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_another_kubectl_of_this_machine_renders_the_same(overlay: str, rendered: Rendered) -> None:
    other = shutil.which("kubectl")
    if other is None:
        pytest.skip("there is no other kubectl on the PATH")
    assert render(other, HOME / overlay) == rendered[overlay]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomizations_say_nothing_that_old_versions_do_not_know(overlay: str) -> None:
    content = yaml.safe_load((HOME / overlay / "kustomization.yaml").read_text("utf-8"))
    assert set(content) <= {"apiVersion", "kind", "resources", "configMapGenerator", "patches"}
    assert all(set(patch) == {"path"} for patch in content.get("patches", []))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_field_of_core_kinds_is_valid(
    overlay: str, version: str, rendered: Rendered, real_component: RealComponent
) -> None:
    core = [manifest for manifest in rendered[overlay] if is_core(manifest)]
    assert core_errors(real_component("operations"), core, version) == []


def test_every_field_of_routes_and_monitors_is_valid(
    rendered: Rendered, real_component: RealComponent, tmp_path: Path
) -> None:
    custom = [manifest for manifests in rendered.values() for manifest in manifests if manifest["kind"] in MODELS]
    assert {manifest["kind"] for manifest in custom} == set(MODELS)
    packages = real_component("custom-resources").parents[1]
    assert custom_errors(packages, custom, tmp_path) == []


def test_an_inference_pool_is_not_validated_because_no_package_carries_its_schema(rendered: Rendered) -> None:
    kinds = {manifest["kind"] for manifests in rendered.values() for manifest in manifests if not is_core(manifest)}
    assert kinds - set(MODELS) == WITHOUT_SCHEMA == {"InferencePool"}
    pool = one(rendered["inferencepool"], "InferencePool")
    assert pool["apiVersion"] == "inference.networking.k8s.io/v1"
    # The fields that the published reference of v1 requires, and no other.
    assert set(pool["spec"]) == {"selector", "targetPorts", "endpointPickerRef"}
    assert set(pool["spec"]["endpointPickerRef"]) == {"name", "port", "failureMode"}
    (route,) = [each for each in rendered["inferencepool"] if each["kind"] == "HTTPRoute"]
    (reference,) = route["spec"]["rules"][0]["backendRefs"]
    assert reference == {
        "group": "inference.networking.k8s.io",
        "kind": "InferencePool",
        "name": pool["metadata"]["name"],
    }
    (parent,) = route["spec"]["parentRefs"]
    assert configuration(rendered["inferencepool"])["backends"][0]["url"] == f"http://{parent['name']}/v1"


def test_the_schemas_refuse_misspelt_fields_and_wrong_values(
    rendered: Rendered, real_component: RealComponent, tmp_path: Path
) -> None:
    deployment = yaml.safe_load(yaml.safe_dump(one(rendered["base"], "Deployment")))
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    (error,) = core_errors(real_component("operations"), [deployment], VERSIONS[0])
    assert "readinessProb" in error
    packages = real_component("custom-resources").parents[1]
    for timeouts, word in (({"requests": "0s"}, "requests"), ({"request": "never"}, "pattern")):
        route = yaml.safe_load(yaml.safe_dump(one(rendered["ingress"], "HTTPRoute")))
        route["spec"]["rules"][0]["timeouts"] = timeouts
        assert word in "\n".join(custom_errors(packages, [route], tmp_path))


# ----------------------------------------------------------------------------------------- true to the container inside


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pod_fits_the_image(overlay: str, rendered: Rendered) -> None:
    container = dragoman(rendered[overlay])
    assert re.fullmatch(rf"dragoman:{re.escape(__version__)}(-extras)?", container["image"])
    assert "command" not in container  # the image's entry point
    assert container["args"][0] == "serve"
    # The image's environment beats the file, so the file must say the same.
    content = configuration(rendered[overlay])
    assert f"DRAGOMAN_HOST={content['host']} DRAGOMAN_PORT={content['port']}" in " ".join(DOCKERFILE["ENV"].split())
    assert str(content["port"]) == str(container["ports"][0]["containerPort"]) == DOCKERFILE["EXPOSE"]
    python = read("ENTRYPOINT " + DOCKERFILE["ENTRYPOINT"])[0].exec_form
    assert python is not None
    assert container["lifecycle"]["preStop"]["exec"]["command"][0] == python[0]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert f"XDG_STATE_HOME={mounts['state']}" in DOCKERFILE["ENV"]
    security = container["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == DOCKERFILE["USER"]
    assert pod(rendered[overlay])["securityContext"]["fsGroup"] == security["runAsGroup"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_gateway_has_no_right_that_it_does_not_need(overlay: str, rendered: Rendered) -> None:
    security = dragoman(rendered[overlay])["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["readOnlyRootFilesystem"] is True
    spec = pod(rendered[overlay])
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert one(rendered[overlay], "ServiceAccount")["automountServiceAccountToken"] is False
    for container in spec["containers"] + spec.get("initContainers", []):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        assert name not in spec


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_is_open_and_only_readiness_asks_for_the_backend(overlay: str, rendered: Rendered) -> None:
    container = dragoman(rendered[overlay])
    paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert set(paths.values()) <= OPEN_PATHS
    assert all(container[f"{probe}Probe"]["httpGet"]["port"] == "http" for probe in paths)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_grace_covers_the_wait_the_drain_and_the_last_words(overlay: str, rendered: Rendered) -> None:
    (waits,) = re.findall(r"sleep\((\d+)\)", dragoman(rendered[overlay])["lifecycle"]["preStop"]["exec"]["command"][-1])
    timeouts = configuration(rendered[overlay])["timeouts"]
    ending = int(waits) + timeouts.get("grace", GRACE) + timeouts["drain"] + LAST_WORDS
    assert pod(rendered[overlay])["terminationGracePeriodSeconds"] >= ending + MARGIN


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_configuration_is_one_that_dragoman_accepts(
    overlay: str, rendered: Rendered, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = configuration(rendered[overlay])
    for backend in content["backends"]:
        if backend["url"].partition(":")[0] not in SCHEMES:
            pytest.skip(f"this version has no backend for {backend['url']}")
    # The files are named where the pod has them; here they lie elsewhere.
    for key, entry in (("api_keys_file", "api-keys"), ("seal_keys_file", "seal-keys")):
        (tmp_path / entry).write_text("0123456789abcdef0123456789abcdef\n")
        environment.setenv(f"DRAGOMAN_{key.upper()}", str(tmp_path / entry))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    path = tmp_path / "gateway.yaml"
    text = one(rendered[overlay], "ConfigMap")["data"]["gateway.yaml"]
    path.write_text(text.replace("tokenizer=/models/tokenizer", f"tokenizer={tmp_path}"))
    assert main(["check", "--config", str(path)]) == 0


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_files_that_are_named_are_mounted(overlay: str, rendered: Rendered) -> None:
    content, container = configuration(rendered[overlay]), dragoman(rendered[overlay])
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(rendered[overlay])["volumes"]}
    assert container["args"][1] == f"--config={mounts['config']}/gateway.yaml"
    assert volumes["config"]["configMap"]["name"] == one(rendered[overlay], "ConfigMap")["metadata"]["name"]
    assert content["api_keys_file"] == f"{mounts['secret']}/api-keys"
    assert content["seal_keys_file"] == f"{mounts['secret']}/seal-keys"
    assert volumes["secret"]["secret"] == {"secretName": "dragoman", "defaultMode": 0o440}
    told = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert "create secret generic dragoman" in told
    assert "--from-file=api-keys" in told
    assert "--from-file=seal-keys" in told
    assert not [manifest for manifest in rendered[overlay] if manifest["kind"] == "Secret"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whoever_selects_pods_finds_them(overlay: str, rendered: Rendered) -> None:
    manifests = rendered[overlay]
    labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    service = one(manifests, "Service")
    selectors = [one(manifests, "Deployment")["spec"]["selector"]["matchLabels"], service["spec"]["selector"]]
    for manifest in manifests:
        if manifest["kind"] == "PodDisruptionBudget":
            selectors.append(manifest["spec"]["selector"]["matchLabels"])
        if manifest["kind"] == "NetworkPolicy":
            selectors.append(manifest["spec"]["podSelector"]["matchLabels"])
        if manifest["kind"] == "ServiceMonitor":
            assert manifest["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
            assert manifest["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert all(selector.items() <= labels for selector in selectors)
    assert service["spec"]["ports"][0]["targetPort"] == dragoman(manifests)["ports"][0]["name"]


# ------------------------------------------------------------------------------------------------------------- overlays


def test_the_ingress_scales_by_a_figure_that_the_gateway_has(rendered: Rendered) -> None:
    autoscaler = one(rendered["ingress"], "HorizontalPodAutoscaler")["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == one(rendered["ingress"], "Deployment")["metadata"]["name"]
    assert "replicas" not in one(rendered["ingress"], "Deployment")["spec"]
    names = [each["pods"]["metric"]["name"] for each in autoscaler["metrics"] if each["type"] == "Pods"]
    assert names == ["dragoman_requests_in_flight"]
    assert set(names) <= set(exported())
    assert f"{names[0]}{{" in (ROOT / "docs" / "operations.md").read_text("utf-8")  # the adapter's rule


def test_streams_have_no_limit_on_any_route(rendered: Rendered) -> None:
    routes = [each for manifests in rendered.values() for each in manifests if each["kind"] == "HTTPRoute"]
    assert len(routes) == 2
    for route in routes:
        for rule in route["spec"]["rules"]:
            assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}


def test_only_the_api_is_reached_from_outside_and_metrics_from_inside(rendered: Rendered) -> None:
    manifests = rendered["ingress"]
    (rule,) = one(manifests, "HTTPRoute")["spec"]["rules"]
    assert [match["path"] for match in rule["matches"]] == [{"type": "PathPrefix", "value": "/v1"}]
    service = one(manifests, "Service")
    port = service["spec"]["ports"][0]["port"]
    assert rule["backendRefs"] == [{"name": service["metadata"]["name"], "port": port}]
    assert one(manifests, "ServiceMonitor")["spec"]["endpoints"][0]["path"] == "/metrics"
    assert configuration(manifests)["metrics_public"] is True
    allowed = one(manifests, "NetworkPolicy")["spec"]["ingress"][0]["ports"]
    assert allowed == [{"protocol": "TCP", "port": dragoman(manifests)["ports"][0]["containerPort"]}]


@pytest.mark.parametrize("overlay", SIDECARS)
def test_the_model_server_outlives_the_drain_and_only_the_pod_reaches_it(overlay: str, rendered: Rendered) -> None:
    (server,) = pod(rendered[overlay])["initContainers"]
    assert server["restartPolicy"] == "Always"
    assert "ports" not in server
    (backend,) = configuration(rendered[overlay])["backends"]
    (port,) = re.findall(r"://127\.0\.0\.1:(\d+)/", backend["url"])
    arguments = " ".join(server["args"])
    assert f"port={port}" in arguments
    assert "0.0.0.0" not in arguments
    assert arguments.count("=127.0.0.1") >= 1
    assert one(rendered[overlay], "Deployment")["spec"]["strategy"]["rollingUpdate"] == {
        "maxUnavailable": 1,
        "maxSurge": 0,
    }


def test_beside_triton_the_gateway_has_the_extras_and_the_tokenizer(rendered: Rendered) -> None:
    container = dragoman(rendered["sidecar-triton"])
    assert container["image"].endswith("-extras")
    (backend,) = configuration(rendered["sidecar-triton"])["backends"]
    (folder,) = re.findall(r"tokenizer=(\S+)", backend["url"])
    assert any(folder.startswith(mount["mountPath"] + "/") for mount in container["volumeMounts"])
