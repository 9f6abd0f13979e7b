"""What spin-operator makes of a ``SpinApp``, re-created as manifests from what its documentation and its source say.

The operator itself is in no registry. docs/spin.md says which state of it was read, and what was compared with it.
"""

import math
import zlib
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
#: By kind and name: what Secrets and ConfigMaps have.
Found = Mapping[tuple[str, str], Mapping[str, str]]

NAME = "core.spinkube.dev/app-name"
PORT = 80
#: Of the custom resource's definition, for what a check leaves out.
_PROBE = {
    "initialDelaySeconds": 10,
    "timeoutSeconds": 1,
    "periodSeconds": 10,
    "successThreshold": 1,
    "failureThreshold": 3,
}
_OTEL = {
    "exporter_otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "exporter_otlp_traces_endpoint": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "exporter_otlp_metrics_endpoint": "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "exporter_otlp_logs_endpoint": "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
}
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def made_of(app: Json, executor: Json, found: Found | None = None) -> list[Json]:
    """The Secret with the generated runtime configuration, if there is one, the Deployment and the Service.

    :param executor: a ``SpinAppExecutor`` with a RuntimeClass
    :param found: what the options of stores and databases refer to
    """
    secret = _runtime_config(app, found or {})
    return [*([secret] if secret else []), _deployment(app, executor, secret), _service(app)]


def _status(name: str) -> Json:
    return {f"core.spinkube.dev/app.{name}.status": "ready"}


def _metadata(app: Json, annotations: str) -> Json:
    name = app["metadata"]["name"]
    return {"name": name, "labels": {NAME: name}, "annotations": app["spec"].get(annotations, {})}


def _deployment(app: Json, executor: Json, generated: Json | None) -> Json:
    name, spec, config = app["metadata"]["name"], app["spec"], executor["spec"]["deploymentConfig"]
    volumes, mounts = _volumes(spec, config, generated)
    container = {
        "name": name,
        "image": spec["image"],
        "command": ["/"],
        "ports": [{"name": "http-app", "containerPort": PORT}],
        "env": _environment(spec, config),
        "volumeMounts": mounts,
        "resources": spec.get("resources", {}),
        **_probes(spec.get("checks", {})),
    }
    ready = {NAME: name, **_status(name)}
    pod = {
        "runtimeClassName": config["runtimeClassName"],
        "serviceAccountName": spec.get("serviceAccountName", "default"),
        "containers": [container],
        "imagePullSecrets": spec.get("imagePullSecrets", []),
        "volumes": volumes,
    }
    metadata = {"labels": {**spec.get("podLabels", {}), **ready}, "annotations": spec.get("podAnnotations", {})}
    replicas = {} if spec.get("enableAutoscaling") else {"replicas": spec.get("replicas", 0)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(app, "deploymentAnnotations"),
        "spec": {**replicas, "selector": {"matchLabels": ready}, "template": {"metadata": metadata, "spec": pod}},
    }


def _service(app: Json) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(app, "serviceAnnotations"),
        "spec": {
            "type": "ClusterIP",
            "ports": [{"protocol": "TCP", "port": PORT, "targetPort": "http-app"}],
            "selector": _status(app["metadata"]["name"]),
        },
    }


def _volumes(spec: Json, config: Json, generated: Json | None) -> tuple[list[Json], list[Json]]:
    """Volumes and where they are mounted: a file each of Secrets, and those that the app names itself."""
    volumes, mounts = [], []
    chosen = generated["metadata"]["name"] if generated else spec.get("runtimeConfig", {}).get("loadFromSecret")
    if chosen:
        volumes.append(_one_file("spin-runtime-config", chosen, "runtime-config.toml"))
        mounts.append(_at("spin-runtime-config", "/runtime-config.toml"))
    volumes += spec.get("volumes", [])
    mounts += spec.get("volumeMounts", [])
    authorities = config.get("caCertSecret") or ("spin-ca" if config.get("installDefaultCACerts") else "")
    if authorities:
        volumes.append(_one_file("spin-ca", authorities, "ca-certificates.crt"))
        mounts.append(_at("spin-ca", "/etc/ssl/certs/ca-certificates.crt"))
    return volumes, mounts


def _one_file(volume: str, secret: str, file: str) -> Json:
    items = [{"key": file, "path": file}]
    return {"name": volume, "secret": {"secretName": secret, "optional": True, "items": items}}


def _at(volume: str, path: str) -> Json:
    return {"name": volume, "readOnly": True, "mountPath": path, "subPath": path.rpartition("/")[2]}


def _environment(spec: Json, config: Json) -> list[Json]:
    variables = [{**one, "name": f"SPIN_VARIABLE_{one['name'].upper()}"} for one in spec.get("variables", [])]
    otel = config.get("otel", {})
    plain = {"SPIN_HTTP_LISTEN_ADDR": f"0.0.0.0:{PORT}"}
    plain |= {variable: otel[key] for key, variable in _OTEL.items() if otel.get(key)}
    if "memory" in (limits := spec.get("invocationLimits", {})):
        plain["SPIN_MAX_INSTANCE_MEMORY"] = str(_bytes(limits["memory"]))
    if "components" in spec:
        plain["SPIN_COMPONENTS_TO_RETAIN"] = ",".join(spec["components"])
    return [*variables, *({"name": name, "value": value} for name, value in plain.items())]


def _bytes(quantity: str) -> int:
    number = quantity.rstrip("kKMGi")
    return math.ceil(float(number) * _UNITS[quantity[len(number) :]])


def _probes(checks: Json) -> Json:
    probes = {}
    for kind in ("readiness", "liveness"):
        if kind in checks:
            asked = {**checks[kind]["httpGet"], "port": PORT}
            probes[f"{kind}Probe"] = {**_PROBE, **checks[kind], "httpGet": asked}
    return probes


def _runtime_config(app: Json, found: Found) -> Json | None:
    """None if the app names a Secret of its own. Its name changes with what is in it."""
    config = app["spec"].get("runtimeConfig", {})
    if config.get("loadFromSecret"):
        return None
    text = "[[config_provider]]\ntype = 'env'\nprefix = 'SPIN_VARIABLE_'\n"
    for table, key in (("key_value_store", "keyValueStores"), ("sqlite_database", "sqliteDatabases")):
        stores = {one["name"]: {"type": one["type"], **_options(one, found)} for one in config.get(key, [])}
        if stores:
            text += f"\n[{table}]\n" + "\n".join(_table(f"{table}.{name}", stores[name]) for name in sorted(stores))
    if llm := config.get("llmCompute"):
        text += "\n" + _table("llm_compute", {"type": llm["type"], **_options(llm, found)})
    name = app["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{name}-{zlib.adler32(text.encode()):x}", "labels": {NAME: name}},
        "stringData": {"runtime-config.toml": text},
    }


def _options(store: Json, found: Found) -> dict[str, str]:
    return {one["name"]: one.get("value") or _value_from(one["valueFrom"], found) for one in store.get("options", [])}


def _value_from(source: Json, found: Found) -> str:
    if reference := source.get("configMapKeyRef"):
        return found["ConfigMap", reference["name"]][reference["key"]]
    reference = source["secretKeyRef"]
    return found["Secret", reference["name"]][reference["key"]]


def _table(name: str, values: Mapping[str, str]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = '{values[key]}'\n" for key in sorted(values))
