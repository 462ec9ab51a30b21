"""The Kubernetes manifests, by the schemas of Kubernetes where their package is there."""

import re

from harness import ARGS, DEPLOY, FOLDER, Skipped, check, run

KUBERNETES = DEPLOY / "kubernetes"
VERSIONS = ["1.30", "1.34"]


def documents():
    """All documents, by file."""
    try:
        import yaml
    except ImportError:
        raise Skipped("PyYAML is not there and could not be fetched") from None
    files = sorted(KUBERNETES.glob("*.yaml"))
    return {file.name: [part for part in yaml.safe_load_all(file.read_text()) if part] for file in files}


def find(kind):
    found = [part for parts in documents().values() for part in parts if part["kind"] == kind]
    assert len(found) == 1, f"{len(found)} of {kind}"
    return found[0]


@check("kubernetes: the manifests are valid")
def valid():
    parts = [part for parts in documents().values() for part in parts]
    for part in parts:
        assert part["apiVersion"] and part["kind"] and part["metadata"]["name"], part
    try:
        import kubernetes_validate
    except ImportError:
        return f"ok: {len(parts)} documents by structure alone: kubernetes-validate could not be fetched"
    own = [part for part in parts if not part["apiVersion"].startswith("monitoring.coreos.com/")]
    for part in own:
        for version in VERSIONS:
            kubernetes_validate.validate(part, version, strict=True)
    broken = {**find("Service"), "specs": {}}
    try:
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)
    except kubernetes_validate.ValidationError:
        pass
    else:
        raise AssertionError("an unknown field is not found")
    rest = [part["kind"] for part in parts if part not in own]
    return f"ok: {len(own)} documents by the schemas of {', '.join(VERSIONS)}, by structure alone: {', '.join(rest)}"


@check("kubernetes: the manifests belong together")
def consistent():
    deployment = find("Deployment")
    template = deployment["spec"]["template"]
    labels, pod = template["metadata"]["labels"], template["spec"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        find("Service")["spec"]["selector"],
        find("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        find("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors), selectors
    monitor, service = find("ServiceMonitor")["spec"], find("Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert find("PodDisruptionBudget")["spec"]["minAvailable"] < deployment["spec"]["replicas"]
    container = pod["containers"][0]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == volumes.keys()
    assert not any("subPath" in mount for mount in container["volumeMounts"])
    assert volumes["keys"]["secret"]["secretName"] == find("Secret")["metadata"]["name"]
    text = (KUBERNETES / "exsa.toml").read_text()
    (key,) = find("Secret")["stringData"]
    assert f'import = "{mounts["keys"]}/{key}"' in text
    for path in re.findall(r'data = "(.*?)"', text):
        assert path.startswith(mounts["state"] + "/")
    # Paths of probes, and times.
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
        asked = container[probe]["httpGet"]
        assert asked["httpHeaders"] == [{"name": "Host", "value": "localhost"}]
        assert asked["path"] == ("/health/live" if probe == "livenessProbe" else "/health/ready")
    drain = re.search(r'\[drain\]\ndelay = "(\d+)s".*\ntimeout = "(\d+)s"', text)
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + int(drain[1]) + int(drain[2]) + 10
    share = float(re.search(r"share = ([\d.]+)", text)[1])
    assert share * deployment["spec"]["replicas"] <= 1


@check("kubernetes: the server accepts exsa.toml and the Secret's keys")
def accepted():
    folder = FOLDER / "kubernetes"
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "keys").write_text(find("Secret")["stringData"]["keys"])
    text = (KUBERNETES / "exsa.toml").read_text()
    for old, new in [
        ("/etc/exsa/keys/keys", folder / "keys"), ("/models", folder / "models"), ("/var/lib/exsa/state", folder),
    ]:  # fmt: skip
        assert old in text, old
        text = text.replace(old, str(new))
    (folder / "exsa.toml").write_text(text)
    run(ARGS.binary, "--config", folder / "exsa.toml", "--check-config")
    # A damaged file is found before the servers refuse it.
    (folder / "keys").write_text(find("Secret")["stringData"]["keys"].replace('"keys":0', '"keys":1'))
    try:
        run(ARGS.binary, "--config", folder / "exsa.toml", "--check-config")
    except AssertionError as error:
        assert "access.import" in str(error) and "checksum" in str(error), error
    else:
        raise AssertionError("damaged keys are accepted")
