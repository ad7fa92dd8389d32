//! What must be true of a rendering, rights apart.

use super::rendered::{Rendered, at, equal, has, text};
use super::{CASES, Check, render};
use crate::codegen;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(super) const CHECKS: [Check; 14] = [
    ("default values make exactly these objects", objects),
    ("pods fit Pod Security \"restricted\"", pod_security),
    ("the flags of the default values", default_flags),
    ("the flags of other values", other_flags),
    ("tidegate takes every flag", flags_are_taken),
    ("probes, ports and environment", probes_and_ports),
    ("a Service leads to the pods", services),
    (
        "a rollout takes no pod away before its time",
        update_strategy,
    ),
    ("DaemonSet", daemon_set),
    ("host network and host ports", host_ports),
    ("autoscaling and metrics", autoscaling_and_metrics),
    ("relayed ports", relayed_ports),
    ("a token and TLS for the admin port", admin_port),
    ("everything else is put where it belongs", everything_else),
];

fn default() -> anyhow::Result<Rendered> {
    render("{}")
}

/// The rendering of a row of [`CASES`].
fn case(name: &str) -> anyhow::Result<Rendered> {
    let (_, values) = CASES
        .iter()
        .find(|(known, _)| *known == name)
        .with_context(|| format!("no case {name}"))?;
    render(values)
}

fn objects() -> anyhow::Result<()> {
    let rendered = default()?;
    let expected = [
        "ClusterRole",
        "ClusterRoleBinding",
        "Deployment",
        "IngressClass",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
    ];
    equal("the kinds", rendered.kinds(), BTreeSet::from(expected))?;
    has(
        rendered.one("IngressClass")?,
        &[
            ("/metadata/name", json!("tidegate")),
            ("/metadata/annotations", Value::Null),
            ("/spec/controller", json!("tidegate.dev/ingress-controller")),
        ],
    )?;
    let minimal = render(
        "{rbac: {create: false}, serviceAccount: {create: false}, \
         controller: {replicaCount: 1, service: {enabled: false}, ingressClassResource: {enabled: false}}}",
    )?;
    equal(
        "the kinds with everything off",
        minimal.kinds(),
        BTreeSet::from(["Deployment"]),
    )?;
    equal(
        "the account",
        text(minimal.pod()?, "/serviceAccountName")?,
        "default",
    )
}

fn pod_security() -> anyhow::Result<()> {
    for (name, values) in CASES {
        let rendered = render(values)?;
        let check = || -> anyhow::Result<()> {
            let pod = rendered.pod()?;
            has(
                pod,
                &[
                    ("/securityContext/runAsNonRoot", json!(true)),
                    ("/securityContext/runAsUser", json!(65532)),
                    (
                        "/securityContext/seccompProfile",
                        json!({"type": "RuntimeDefault"}),
                    ),
                    ("/automountServiceAccountToken", json!(true)),
                    ("/initContainers", Value::Null),
                    ("/hostPID", Value::Null),
                    ("/hostIPC", Value::Null),
                ],
            )?;
            // Of volumes only Secrets are used, which "restricted" admits.
            let volumes = pod["volumes"].as_array();
            ensure!(
                volumes
                    .into_iter()
                    .flatten()
                    .all(|v| v.get("secret").is_some()),
                "{volumes:?} are not all Secrets"
            );
            let expected = json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            });
            equal(
                "the security context",
                at(rendered.container()?, "/securityContext")?,
                &expected,
            )?;
            has(
                rendered.one("ServiceAccount")?,
                &[("/automountServiceAccountToken", json!(false))],
            )
        };
        check().context(name)?;
    }
    Ok(())
}

fn default_flags() -> anyhow::Result<()> {
    let expected = vec![
        "controller",
        "--http-addr=0.0.0.0:8080",
        "--https-addr=0.0.0.0:8443",
        "--admin-addr=0.0.0.0:10254",
        "--ingress-class=tidegate",
        "--controller-name=tidegate.dev/ingress-controller",
        "--publish-service=tidegate/tidegate",
        "--lease-namespace=$(POD_NAMESPACE)",
        "--lease-name=tidegate-leader",
        "--lameduck=10s",
        "--drain-timeout=45s",
    ];
    equal("args", default()?.args()?, expected)
}

fn other_flags() -> anyhow::Result<()> {
    let everything = case("everything else")?;
    let expected = vec![
        "controller",
        "--http-addr=[::]:9080",
        "--https-addr=[::]:9443",
        "--admin-addr=[::]:10254",
        "--ingress-class=edge",
        "--controller-name=edge.test/ingress",
        "--publish-service=tidegate/tidegate-edge",
        "--lease-namespace=$(POD_NAMESPACE)",
        "--lease-name=tidegate-edge-leader",
        "--lameduck=10s",
        "--drain-timeout=45s",
        "--tls-ticket-keys=/etc/tidegate/ticket-keys/keys",
        "--allow-external-name",
        "--log-format=json",
        "--max-request-body=20000000",
        "--trusted-proxy=10.0.0.0/8",
        "--trusted-proxy=fd00::/8",
    ];
    equal("args", everything.args()?, expected)?;
    let volume = text(everything.pod()?, "/volumes/0/secret/secretName")?;
    equal("ticket keys", volume, "edge-keys")?;
    for (values, wanted, unwanted) in [
        (
            "{scope: {enabled: true}}",
            "--watch-namespace=tidegate",
            "--secret-namespace",
        ),
        (
            "{scope: {enabled: true, namespace: shop}, publishService: {pathOverride: shop/edge}}",
            "--watch-namespace=shop",
            "--publish-service=tidegate",
        ),
        (
            "{secretNamespaces: [shop, infra]}",
            "--secret-namespace=infra",
            "--watch-namespace",
        ),
        (
            "{publishService: {pathOverride: infra/edge}}",
            "--publish-service=infra/edge",
            "--publish-service=tidegate",
        ),
        (
            "{publishService: {enabled: false}}",
            "controller",
            "--publish-service",
        ),
        (
            "{service: {enabled: false}}",
            "controller",
            "--publish-service",
        ),
        (
            "{lameduckSeconds: 5, drainSeconds: 3000, terminationGracePeriodSeconds: 3600}",
            "--drain-timeout=3000s",
            "--drain-timeout=45s",
        ),
        (
            "{metrics: {port: 9000}}",
            "--admin-addr=0.0.0.0:9000",
            "--admin-addr=0.0.0.0:10254",
        ),
    ] {
        let rendered = render(&format!("controller: {values}"))?;
        let args = rendered.args()?;
        ensure!(
            args.contains(&wanted),
            "no {wanted} with {values}: {args:?}"
        );
        ensure!(
            !args.iter().any(|arg| arg.starts_with(unwanted)),
            "{unwanted} with {values}: {args:?}"
        );
    }
    Ok(())
}

fn flags_are_taken() -> anyhow::Result<()> {
    for (name, values) in CASES {
        let rendered = render(values)?;
        let mut args = rendered.args()?;
        // Every flag before it is read first, and then nothing is started.
        args.push("--help");
        crate::process::output(&mut codegen::tidegate(&args)).context(name)?;
    }
    Ok(())
}

fn probes_and_ports() -> anyhow::Result<()> {
    let rendered = default()?;
    let container = rendered.container()?;
    has(
        container,
        &[
            (
                "/livenessProbe/httpGet",
                json!({"path": "/healthz", "port": "admin"}),
            ),
            (
                "/readinessProbe/httpGet",
                json!({"path": "/readyz", "port": "admin"}),
            ),
            (
                "/ports",
                json!([
                    {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                    {"name": "https", "containerPort": 8443, "protocol": "TCP"},
                    {"name": "admin", "containerPort": 10254, "protocol": "TCP"},
                ]),
            ),
            (
                "/env",
                json!([
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                    {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                ]),
            ),
            ("/image", json!("tidegate:0.0.0")),
        ],
    )?;
    has(
        rendered.pod()?,
        &[("/terminationGracePeriodSeconds", json!(60))],
    )
}

fn services() -> anyhow::Result<()> {
    for (name, values) in CASES {
        let rendered = render(values)?;
        let labels = at(rendered.workload()?, "/spec/template/metadata/labels")?;
        let selectors = rendered
            .all("Service")
            .chain(rendered.all("PodDisruptionBudget"))
            .chain([rendered.workload()?]);
        for object in selectors {
            let selector = object
                .pointer("/spec/selector/matchLabels")
                .or(object.pointer("/spec/selector"));
            let selector = selector
                .and_then(Value::as_object)
                .filter(|selector| !selector.is_empty());
            for (key, value) in selector.context("a selector is missing")? {
                equal(&format!("{name}: label {key}"), &labels[key], value)?;
            }
        }
        let names: Vec<_> = at(rendered.container()?, "/ports")?
            .as_array()
            .into_iter()
            .flatten()
            .map(|port| port["name"].clone())
            .collect();
        for service in rendered.all("Service") {
            for port in at(service, "/spec/ports")?.as_array().context("no ports")? {
                ensure!(
                    names.contains(&port["targetPort"]),
                    "{name}: {port} leads to no port of the container"
                );
            }
        }
    }
    let service = |rendered: &Rendered| rendered.one("Service").cloned();
    has(
        &service(&default()?)?,
        &[
            ("/spec/type", json!("LoadBalancer")),
            ("/spec/externalTrafficPolicy", Value::Null),
            ("/spec/ports/0/port", json!(80)),
            ("/spec/ports/1/port", json!(443)),
        ],
    )?;
    has(
        &service(&case("everything else")?)?,
        &[
            ("/spec/type", json!("NodePort")),
            ("/spec/externalTrafficPolicy", json!("Local")),
            ("/spec/ports/0/port", json!(8080)),
            ("/spec/ports/0/nodePort", json!(30080)),
            ("/spec/ports/1/nodePort", json!(30443)),
        ],
    )
}

fn relayed_ports() -> anyhow::Result<()> {
    let rendered = case("relayed ports")?;
    let flags =
        ["tcp", "udp"].map(|kind| format!("--{kind}-services-configmap=tidegate/tidegate-{kind}"));
    let args = rendered.args()?;
    ensure!(
        flags.iter().all(|flag| args.contains(&flag.as_str())),
        "{args:?}"
    );
    equal(
        "the ConfigMap",
        &rendered.named("ConfigMap", "tidegate-tcp")?["data"],
        &json!({"9000": "shop/db:sql:PROXY", "9001": "shop/db:5432"}),
    )?;
    has(
        rendered.one("Service")?,
        &[
            ("/spec/ports/2/port", json!(9000)),
            (
                "/spec/ports/4",
                json!({"name": "53-udp", "port": 53, "targetPort": "53-udp", "protocol": "UDP"}),
            ),
        ],
    )
}

fn admin_port() -> anyhow::Result<()> {
    let rendered = case("admin port closed")?;
    let args = rendered.args()?;
    for flag in [
        "--admin-token-file=/etc/tidegate/admin-token/token",
        "--admin-token-for-metrics",
        "--admin-tls-cert=/etc/tidegate/admin-tls/tls.crt",
        "--admin-tls-key=/etc/tidegate/admin-tls/tls.key",
    ] {
        ensure!(args.contains(&flag), "no {flag}: {args:?}");
    }
    has(
        rendered.container()?,
        &[
            ("/livenessProbe/httpGet/scheme", json!("HTTPS")),
            ("/readinessProbe/httpGet/scheme", json!("HTTPS")),
            (
                "/volumeMounts/1",
                json!({"name": "admin-token", "mountPath": "/etc/tidegate/admin-token", "readOnly": true}),
            ),
        ],
    )?;
    has(
        rendered.pod()?,
        &[(
            "/volumes",
            json!([
                {"name": "admin-tls", "secret": {"secretName": "admin-tls"}},
                {"name": "admin-token", "secret": {"secretName": "admin-token"}},
                {"name": "ticket-keys", "secret": {"secretName": "keys"}},
            ]),
        )],
    )?;
    let scraped = render(
        "controller: {admin: {tokenSecret: t, tokenForMetrics: true, tlsSecret: s}, \
         metrics: {enabled: true, serviceMonitor: {enabled: true}}}",
    )?;
    has(
        scraped.one("ServiceMonitor")?,
        &[
            ("/spec/endpoints/0/scheme", json!("https")),
            (
                "/spec/endpoints/0/authorization/credentials",
                json!({"name": "t", "key": "token"}),
            ),
        ],
    )
}

fn update_strategy() -> anyhow::Result<()> {
    let surge =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let replace =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
    for (name, pointer, expected) in [
        ("default values", "/spec/strategy", &surge),
        ("DaemonSet", "/spec/updateStrategy", &surge),
        ("host network", "/spec/updateStrategy", &replace),
        ("host ports", "/spec/strategy", &replace),
    ] {
        equal(name, at(case(name)?.workload()?, pointer)?, expected)?;
    }
    has(
        default()?.one("PodDisruptionBudget")?,
        &[("/spec/maxUnavailable", json!(1))],
    )
}

fn daemon_set() -> anyhow::Result<()> {
    let rendered = case("DaemonSet")?;
    has(
        rendered.one("DaemonSet")?,
        &[
            ("/spec/replicas", Value::Null),
            ("/spec/strategy", Value::Null),
        ],
    )?;
    for kind in ["Deployment", "PodDisruptionBudget"] {
        ensure!(rendered.all(kind).next().is_none(), "there is a {kind}");
    }
    Ok(())
}

fn host_ports() -> anyhow::Result<()> {
    let network = case("host network")?;
    has(
        network.pod()?,
        &[
            ("/hostNetwork", json!(true)),
            ("/dnsPolicy", json!("ClusterFirstWithHostNet")),
        ],
    )?;
    for (rendered, expected) in [
        (network, json!([8080, 8443, 10254])),
        (case("host ports")?, json!([80, 443, null])),
    ] {
        let ports = at(rendered.container()?, "/ports")?
            .as_array()
            .into_iter()
            .flatten();
        let ports: Vec<_> = ports.map(|port| port["hostPort"].clone()).collect();
        equal("the ports of the node", json!(ports), expected)?;
    }
    Ok(())
}

fn autoscaling_and_metrics() -> anyhow::Result<()> {
    let rendered = render(
        "controller: {autoscaling: {enabled: true}, metrics: {enabled: true, serviceMonitor: {enabled: true}}}",
    )?;
    has(rendered.workload()?, &[("/spec/replicas", Value::Null)])?;
    has(
        rendered.one("HorizontalPodAutoscaler")?,
        &[
            (
                "/spec/scaleTargetRef",
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "tidegate"}),
            ),
            ("/spec/minReplicas", json!(2)),
            (
                "/spec/metrics/0/resource/target/averageUtilization",
                json!(60),
            ),
            ("/spec/metrics/1", Value::Null),
        ],
    )?;
    let monitor = rendered.one("ServiceMonitor")?;
    has(
        monitor,
        &[
            ("/spec/endpoints/0/honorLabels", json!(false)),
            ("/spec/endpoints/0/port", json!("metrics")),
            ("/spec/endpoints/0/path", json!("/metrics")),
        ],
    )?;
    let wanted = at(monitor, "/spec/selector/matchLabels")?
        .as_object()
        .context("no matchLabels")?;
    let chosen: Vec<_> = rendered
        .all("Service")
        .filter(|service| {
            wanted
                .iter()
                .all(|(key, value)| service["metadata"]["labels"][key] == *value)
        })
        .map(|service| service["metadata"]["name"].clone())
        .collect();
    equal(
        "the Services that are scraped",
        json!(chosen),
        json!(["tidegate-metrics"]),
    )?;
    has(
        rendered.named("Service", "tidegate-metrics")?,
        &[
            ("/spec/ports/0/name", json!("metrics")),
            ("/spec/ports/0/targetPort", json!("admin")),
            ("/spec/type", json!("ClusterIP")),
        ],
    )
}

fn everything_else() -> anyhow::Result<()> {
    let rendered = case("everything else")?;
    has(
        rendered.workload()?,
        &[
            (
                "/spec/strategy/rollingUpdate",
                json!({"maxUnavailable": "25%"}),
            ),
            (
                "/spec/template/metadata/annotations",
                json!({"pod.test/a": "b"}),
            ),
            ("/spec/template/metadata/labels/pod.test~1c", json!("d")),
        ],
    )?;
    has(
        rendered.pod()?,
        &[
            ("/serviceAccountName", json!("edge-account")),
            ("/imagePullSecrets", json!([{"name": "registry"}])),
            ("/priorityClassName", json!("system-cluster-critical")),
            (
                "/nodeSelector",
                json!({"pool": "edge", "kubernetes.io/os": "linux"}),
            ),
            ("/tolerations/0/key", json!("edge")),
            ("/topologySpreadConstraints/0/maxSkew", json!(1)),
        ],
    )?;
    at(rendered.pod()?, "/affinity/podAntiAffinity")?;
    has(
        rendered.container()?,
        &[
            (
                "/image",
                json!(
                    "registry.test/tidegate@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
                ),
            ),
            ("/imagePullPolicy", json!("Always")),
            ("/resources/limits/memory", json!("2Gi")),
        ],
    )?;
    has(
        rendered.one("IngressClass")?,
        &[
            ("/metadata/name", json!("edge")),
            (
                "/metadata/annotations/ingressclass.kubernetes.io~1is-default-class",
                json!("true"),
            ),
        ],
    )?;
    has(
        rendered.one("ServiceAccount")?,
        &[("/metadata/annotations/account.test~1e", json!("f"))],
    )?;
    // As long as any name may be; `Rendered` checks what is made of it.
    render(&format!("fullnameOverride: {}", "n".repeat(63))).map(drop)
}
