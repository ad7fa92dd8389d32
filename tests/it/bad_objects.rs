//! Broken objects cost themselves a diagnostic and nothing else: each is written beside a healthy Ingress that is asked all
//! the time. The ids are those of `docs/bad-objects.md`.

use crate::cluster::{Cluster, ingress, ready, service, slice};
use crate::main_job::eventually;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use test_support::client::{get, wait_for};
use test_support::load::Plan;
use test_support::{Backend, Load, certificate};

const NS: &str = "bad-objects";

/// One broken Ingress and the Event it should get.
struct Case {
    id: &'static str,
    name: &'static str,
    object: Value,
    /// Any of these reasons; none means that the API server itself must refuse the object.
    reasons: &'static [&'static str],
    /// What its host is answered, if it matters.
    status: Option<u16>,
}

fn annotated(name: &str, annotations: Value) -> Value {
    let mut object = ingress(name, &[(&format!("{name}.bad.test"), "/", "Prefix", "web")]);
    object["metadata"]["annotations"] = annotations;
    object
}

fn cases() -> Vec<Case> {
    let case = |id, name, object, reasons, status| Case {
        id,
        name,
        object,
        reasons,
        status,
    };
    let mut resource = ingress(
        "k2-resource",
        &[("k2-resource.bad.test", "/", "Prefix", "web")],
    );
    resource["spec"]["rules"][0]["http"]["paths"][0]["backend"] =
        json!({"resource": {"apiGroup": "x.test", "kind": "Bucket", "name": "b"}});
    let mut no_http = ingress("k2-no-http", &[]);
    no_http["spec"]["rules"] = json!([{"host": "k2-no-http.bad.test"}]);
    let mut wrong_port = ingress("k6-port", &[("k6-port.bad.test", "/", "Prefix", "web")]);
    wrong_port["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] =
        json!({"name": "nope"});
    let tls = |name: &str, secret: &str| {
        let host = format!("{name}.bad.test");
        let mut object = ingress(name, &[(&host, "/", "Prefix", "web")]);
        object["spec"]["tls"] = json!([{"hosts": [host], "secretName": secret}]);
        object["metadata"]["annotations"] = json!({"tidegate.dev/ssl-redirect": "false"});
        object
    };
    let nginx = "nginx.ingress.kubernetes.io";
    vec![
        case(
            "K1",
            "k1",
            annotated(
                "k1",
                json!({"tidegate.dev/connect-timeout": "5s;}\n{{ .x }} \"'"}),
            ),
            &["InvalidAnnotation"],
            Some(200),
        ),
        case(
            "K1",
            "k1-unknown",
            annotated("k1-unknown", json!({"tidegate.dev/conect-timeout": "5s"})),
            &["UnknownAnnotation"],
            Some(200),
        ),
        case(
            "K1",
            "k1-long",
            annotated(
                "k1-long",
                json!({"tidegate.dev/attempts": "9".repeat(200_000)}),
            ),
            &["InvalidAnnotation"],
            Some(200),
        ),
        case(
            "K2",
            "k2-resource",
            resource,
            &["UnsupportedBackend"],
            Some(503),
        ),
        case("K2", "k2-no-http", no_http, &["NoPaths"], Some(404)),
        case(
            "K2",
            "k2-empty",
            json!({"metadata": {"name": "k2-empty"}, "spec": {"ingressClassName": "tidegate"}}),
            &[],
            None,
        ),
        case(
            "K3",
            "k3-negative",
            annotated("k3-negative", json!({"tidegate.dev/idle-timeout": "-1s"})),
            &["InvalidAnnotation"],
            Some(200),
        ),
        case(
            "K3",
            "k3-long",
            annotated("k3-long", json!({"tidegate.dev/idle-timeout": "99999h"})),
            &["InvalidAnnotation"],
            Some(200),
        ),
        case(
            "K3",
            "k3-exponent",
            annotated("k3-exponent", json!({"tidegate.dev/idle-timeout": "1e9"})),
            &["InvalidAnnotation"],
            Some(200),
        ),
        case(
            "K3",
            "k3-nan",
            annotated("k3-nan", json!({"tidegate.dev/idle-timeout": "NaN"})),
            &["InvalidAnnotation"],
            Some(200),
        ),
        case(
            "K4",
            "k4-dots",
            ingress(
                "k4-dots",
                &[(
                    "k4-dots.bad.test",
                    "/a/../b",
                    "ImplementationSpecific",
                    "web",
                )],
            ),
            &["InvalidPath"],
            Some(404),
        ),
        case(
            "K4",
            "k4-long",
            ingress(
                "k4-long",
                &[(
                    "k4-long.bad.test",
                    &format!("/{}", "x".repeat(10_240)),
                    "Prefix",
                    "web",
                )],
            ),
            &["InvalidPath"],
            Some(404),
        ),
        case(
            "K4",
            "k4-regex",
            ingress(
                "k4-regex",
                &[("k4-regex.bad.test", "/a(.*)", "Prefix", "web")],
            ),
            &["LooksLikeRegex"],
            Some(404),
        ),
        case(
            "K4",
            "k4-slash",
            ingress(
                "k4-slash",
                &[("k4-slash.bad.test", "no-slash", "Prefix", "web")],
            ),
            &[],
            None,
        ),
        case(
            "K5",
            "k5-missing",
            ingress(
                "k5-missing",
                &[("k5-missing.bad.test", "/", "Prefix", "nowhere")],
            ),
            &["BackendNotFound"],
            Some(503),
        ),
        case(
            "K5",
            "k5-none",
            ingress("k5-none", &[("k5-none.bad.test", "/", "Prefix", "empty")]),
            &["NoEndpoints"],
            Some(503),
        ),
        case("K6", "k6-port", wrong_port, &["PortNotFound"], Some(503)),
        case(
            "K6",
            "k6-udp",
            ingress("k6-udp", &[("k6-udp.bad.test", "/", "Prefix", "udp")]),
            &["UnsupportedProtocol"],
            Some(503),
        ),
        case(
            "K7",
            "k7-missing",
            tls("k7-missing", "nowhere"),
            &["SecretNotFound"],
            Some(200),
        ),
        case(
            "K7",
            "k7-mismatch",
            tls("k7-mismatch", "mismatch"),
            &["InvalidCertificate"],
            Some(200),
        ),
        case(
            "K7",
            "k7-garbage",
            tls("k7-garbage", "garbage"),
            &["InvalidCertificate"],
            Some(200),
        ),
        case(
            "K8",
            "k8-auth",
            annotated(
                "k8-auth",
                json!({format!("{nginx}/auth-type"): "basic", format!("{nginx}/auth-secret"): "gone"}),
            ),
            &["UnsupportedSecurityAnnotation"],
            Some(503),
        ),
        case(
            "K8",
            "k8-ca",
            annotated(
                "k8-ca",
                json!({format!("{nginx}/auth-tls-secret"): "bad-objects/gone"}),
            ),
            &["SecretNotFound"],
            Some(503),
        ),
        case(
            "K8",
            "k8-list",
            annotated(
                "k8-list",
                json!({format!("{nginx}/whitelist-source-range"): "10.0.0.0/8, all"}),
            ),
            &["InvalidAnnotation"],
            Some(503),
        ),
        case(
            "K9",
            "k9-regex",
            {
                let mut object = ingress(
                    "k9-regex",
                    &[(
                        "k9-regex.bad.test",
                        "/(a+)+$",
                        "ImplementationSpecific",
                        "web",
                    )],
                );
                object["metadata"]["annotations"] = json!({format!("{nginx}/use-regex"): "true"});
                object
            },
            &["UnsupportedRegex"],
            Some(404),
        ),
        case(
            "K10",
            "k10-external",
            ingress(
                "k10-external",
                &[("k10-external.bad.test", "/", "Prefix", "external")],
            ),
            &["ExternalNameRefused"],
            Some(503),
        ),
        case(
            "K13",
            "k13-secret",
            tls("k13-secret", "kube-system/stolen"),
            &[],
            None,
        ),
        case(
            "K15",
            "k15-wildcard",
            ingress("k15-wildcard", &[("*.victim.test", "/", "Prefix", "web")]),
            &["HostConflict"],
            None,
        ),
        case(
            "K15",
            "k15-below",
            ingress("k15-below", &[("pay.wild.test", "/", "Prefix", "web")]),
            &["HostConflict"],
            None,
        ),
        case(
            "K16",
            "k16-any",
            ingress("k16-any", &[("", "/", "Prefix", "web")]),
            &["HostConflict"],
            None,
        ),
        case(
            "K23",
            "k23-host",
            ingress("k23-host", &[("UPPER.bad.test", "/", "Prefix", "web")]),
            &[],
            None,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_each_costs_only_itself() {
    let Some(cluster) = Cluster::enter().await else {
        return;
    };
    for namespace in [NS, "bad-objects-owner"] {
        cluster.namespace(namespace).await;
    }
    let web = Backend::start_at("web", "10.244.128.70:8000".parse().unwrap(), Duration::ZERO).await;
    for namespace in [NS, "bad-objects-owner"] {
        cluster.put::<Service>(namespace, service("web")).await;
        cluster
            .put::<EndpointSlice>(namespace, slice("web", 8000, &[("10.244.128.70", ready())]))
            .await;
    }
    cluster.put::<Service>(NS, service("empty")).await;
    cluster.put::<Service>(NS, json!({"metadata": {"name": "external"}, "spec": {"type": "ExternalName", "externalName": "localhost"}})).await;
    cluster.put::<Service>(NS, json!({"metadata": {"name": "udp"}, "spec": {"ports": [{"name": "http", "port": 80, "protocol": "UDP"}]}})).await;
    let (certificate, _) = certificate::self_signed(&["a.test"]);
    let (_, other_key) = certificate::self_signed(&["a.test"]);
    for (name, certificate, key) in [
        ("mismatch", &*certificate, &*other_key),
        ("garbage", "garbage", "garbage"),
    ] {
        let data = json!({"tls.crt": certificate, "tls.key": key});
        cluster.put::<Secret>(NS, json!({"metadata": {"name": name}, "type": "kubernetes.io/tls", "stringData": data})).await;
    }
    // What others will try to take; a second apart, because creation times have whole seconds.
    let owned = ingress(
        "owner",
        &[
            ("pay.victim.test", "/", "Prefix", "web"),
            ("*.wild.test", "/", "Prefix", "web"),
            ("", "/all", "Prefix", "web"),
        ],
    );
    cluster.put::<Ingress>("bad-objects-owner", owned).await;
    cluster
        .put::<Ingress>(
            NS,
            ingress("healthy", &[("healthy.bad.test", "/", "Prefix", "web")]),
        )
        .await;
    tokio::time::sleep(Duration::from_millis(1100)).await;

    let own = Ipv4Addr::new(10, 244, 128, 79);
    let tidegate = cluster
        .tidegate_at("bad-objects", own, &["--no-update-status"])
        .await;
    eventually("leadership", async || {
        (tidegate.metric("tidegate_leader").await == 1.0).then_some(())
    })
    .await;
    wait_for(tidegate.http, "healthy.bad.test", "/", |answer| {
        answer.status == 200
    })
    .await;
    let plan = Plan {
        addrs: vec![tidegate.http],
        host: "healthy.bad.test".into(),
        path: "/".into(),
        posts: false,
        clients: 4,
        rate: 50,
        limit: 100_000,
    };
    let canary = Load::start(plan);

    for case in cases() {
        let api: Api<Ingress> = Api::namespaced(cluster.client.clone(), NS);
        let mut object = case.object.clone();
        object["apiVersion"] = "networking.k8s.io/v1".into();
        object["kind"] = "Ingress".into();
        let written = api
            .patch(
                case.name,
                &PatchParams::apply("test").force(),
                &Patch::Apply(object),
            )
            .await;
        match (&written, case.reasons) {
            (Err(kube::Error::Api(refusal)), []) => {
                println!(
                    "{:<4} {:<14} refused by the API server: {}",
                    case.id,
                    case.name,
                    first_line(&refusal.message)
                );
                continue;
            }
            (Ok(_), [_, ..]) => {}
            _ => panic!("{} {}: {written:?}", case.id, case.name),
        }
        let start = Instant::now();
        let said = eventually(case.name, async || {
            event(&cluster, "Ingress", case.name, case.reasons)
        })
        .await;
        let event_after = start.elapsed();
        let host = format!("{}.bad.test", case.name);
        let answered = match case.status {
            Some(status) => {
                wait_for(tidegate.http, &host, "/", |answer| {
                    answer.status.as_u16() == status
                })
                .await;
                format!(", answered {status}")
            }
            None => String::new(),
        };
        println!(
            "{:<4} {:<14} Event after {event_after:?}{answered}: {}",
            case.id,
            case.name,
            first_line(&said)
        );
    }
    assert_eq!(
        get(tidegate.http, "pay.victim.test", "/")
            .await
            .unwrap()
            .status,
        200,
        "the owner still has its host"
    );

    loops_end(&cluster, &tidegate.http.to_string()).await;
    odd_slices(&cluster, tidegate.http).await;
    ownership_passes_on(&cluster, tidegate.http).await;
    services_come_and_go(&cluster, tidegate.http).await;
    flapping(&cluster, &tidegate).await;

    let outcome = canary.stop().await;
    println!(
        "healthy Ingress meanwhile: {} requests, {} failed {:?}",
        outcome.total(),
        outcome.failures(),
        outcome.failed
    );
    assert_eq!(outcome.failures(), 0);
    assert!(
        !tidegate.logged().contains("panicked"),
        "{}",
        tidegate.logged()
    );
    assert!(web.requests() > 0);
    cluster.kubectl(&[
        "delete",
        "namespace",
        NS,
        "bad-objects-owner",
        "--wait=false",
    ]);
}

fn first_line(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(140)
        .collect()
}

/// What an Event with one of these reasons says about an object.
fn event(cluster: &Cluster, kind: &str, name: &str, reasons: &[&str]) -> Option<String> {
    let selector =
        format!("--field-selector=involvedObject.kind={kind},involvedObject.name={name}");
    let events: Value = serde_json::from_str(&cluster.kubectl(&[
        "get",
        "events",
        "--namespace",
        NS,
        &selector,
        "--output=json",
    ]))
    .unwrap();
    let found = events["items"]
        .as_array()?
        .iter()
        .find(|event| reasons.contains(&event["reason"].as_str().unwrap_or_default()))?;
    Some(format!(
        "{}: {}",
        found["reason"].as_str()?,
        found["message"].as_str()?
    ))
}

/// K11: a Service whose endpoint is our own port.
async fn loops_end(cluster: &Cluster, own: &str) {
    let (ip, port) = own.rsplit_once(':').unwrap();
    cluster.put::<Service>(NS, service("loop")).await;
    cluster
        .put::<EndpointSlice>(NS, slice("loop", port.parse().unwrap(), &[(ip, ready())]))
        .await;
    cluster
        .put::<Ingress>(
            NS,
            ingress("k11-loop", &[("k11-loop.bad.test", "/", "Prefix", "loop")]),
        )
        .await;
    let answer = wait_for(own.parse().unwrap(), "k11-loop.bad.test", "/", |answer| {
        answer.status == 508
    })
    .await;
    println!("K11  k11-loop       answered {}", answer.status);
}

/// K12 and K17: slices of a type nobody uses, and every combination of conditions.
async fn odd_slices(cluster: &Cluster, http: std::net::SocketAddr) {
    let mut names = slice("odd", 8000, &[("backend.test", ready())]);
    names["addressType"] = "FQDN".into();
    names["metadata"]["name"] = "odd-names".into();
    cluster.put::<Service>(NS, service("odd")).await;
    cluster.put::<EndpointSlice>(NS, names).await;
    cluster
        .put::<Ingress>(
            NS,
            ingress("k17-odd", &[("k17-odd.bad.test", "/", "Prefix", "odd")]),
        )
        .await;
    let said = eventually("the Event", async || {
        event(cluster, "EndpointSlice", "odd-names", &["InvalidEndpoint"])
    })
    .await;
    println!("K12  odd-names      {}", first_line(&said));
    // Nil is ready; the same address in two slices counts once; one that is not ready and not serving is out.
    let out = json!({"ready": false, "serving": false, "terminating": true});
    cluster
        .put::<EndpointSlice>(
            NS,
            slice(
                "odd",
                8000,
                &[("10.244.128.70", json!({})), ("10.244.128.99", out)],
            ),
        )
        .await;
    let mut second = slice("odd", 8000, &[("10.244.128.70", ready())]);
    second["metadata"]["name"] = "odd-2".into();
    cluster.put::<EndpointSlice>(NS, second).await;
    wait_for(http, "k17-odd.bad.test", "/", |answer| answer.status == 200).await;
    for _ in 0..20 {
        assert_eq!(
            get(http, "k17-odd.bad.test", "/").await.unwrap().text(),
            "web"
        );
    }
    println!(
        "K17  k17-odd        nil conditions are ready, the address counts once, 20 of 20 answered"
    );
}

/// K14: the same host and path in two namespaces; the oldest has it, and it passes on when the oldest goes.
async fn ownership_passes_on(cluster: &Cluster, http: std::net::SocketAddr) {
    cluster
        .put::<Ingress>(
            "bad-objects-owner",
            ingress("k14", &[("k14.bad.test", "/old", "Prefix", "web")]),
        )
        .await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    cluster
        .put::<Ingress>(
            NS,
            ingress("k14", &[("k14.bad.test", "/", "Prefix", "web")]),
        )
        .await;
    let said = eventually("the Event", async || {
        event(cluster, "Ingress", "k14", &["HostConflict"])
    })
    .await;
    assert_eq!(
        get(http, "k14.bad.test", "/young").await.unwrap().status,
        404,
        "the younger is not served"
    );
    cluster.delete::<Ingress>("bad-objects-owner", "k14").await;
    let deleted = Instant::now();
    wait_for(http, "k14.bad.test", "/young", |answer| {
        answer.status == 200
    })
    .await;
    println!(
        "K14  k14            handed over {:?} after the delete; before: {}",
        deleted.elapsed(),
        first_line(&said)
    );
}

/// K18: a Service that is deleted before its Ingress.
async fn services_come_and_go(cluster: &Cluster, http: std::net::SocketAddr) {
    cluster.put::<Service>(NS, service("gone")).await;
    cluster
        .put::<EndpointSlice>(NS, slice("gone", 8000, &[("10.244.128.70", ready())]))
        .await;
    cluster
        .put::<Ingress>(
            NS,
            ingress("k18", &[("k18.bad.test", "/", "Prefix", "gone")]),
        )
        .await;
    wait_for(http, "k18.bad.test", "/", |answer| answer.status == 200).await;
    cluster.delete::<Service>(NS, "gone").await;
    wait_for(http, "k18.bad.test", "/", |answer| answer.status == 503).await;
    cluster
        .put::<Ingress>(NS, {
            let mut object = ingress("k18", &[("k18.bad.test", "/", "Prefix", "gone")]);
            object["spec"]["ingressClassName"] = "somebody-else".into();
            object
        })
        .await;
    let deleted = Instant::now();
    wait_for(http, "k18.bad.test", "/", |answer| answer.status == 404).await;
    println!(
        "K18  k18            503 without its Service, withdrawn {:?} after its class changed",
        deleted.elapsed()
    );
}

/// K19 and K20: a large object, and one that changes 50 times a second.
async fn flapping(cluster: &Cluster, tidegate: &test_support::Tidegate) {
    let paths: Vec<(String, String)> = (0..2000)
        .map(|n| {
            (
                "k19.bad.test".to_owned(),
                format!("/{n}/{}", "x".repeat(300)),
            )
        })
        .collect();
    let rules: Vec<(&str, &str, &str, &str)> = paths
        .iter()
        .map(|(host, path)| (host.as_str(), path.as_str(), "Prefix", "web"))
        .collect();
    cluster
        .put::<Ingress>(NS, ingress("k19-large", &rules))
        .await;
    let last = paths.last().unwrap();
    let written = Instant::now();
    wait_for(tidegate.http, "k19.bad.test", &last.1, |answer| {
        answer.status == 200
    })
    .await;
    println!(
        "K19  k19-large      an Ingress of 2,000 rules is served {:?} after the write",
        written.elapsed()
    );
    let before = tidegate.metric("tidegate_translations_total").await;
    let start = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut writes = 0;
    while start.elapsed() < Duration::from_secs(3) {
        ticks.tick().await;
        writes += 1;
        cluster
            .put::<Ingress>(
                NS,
                ingress(
                    "k20-flap",
                    &[(&format!("k20-{writes}.bad.test"), "/", "Prefix", "web")],
                ),
            )
            .await;
    }
    let rebuilds = tidegate.metric("tidegate_translations_total").await - before;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "K20  k20-flap       {writes} writes in {seconds:.1} s made {rebuilds} translations ({:.1} a second)",
        rebuilds / seconds
    );
    assert!(
        rebuilds <= seconds * 10.0 + 1.0,
        "{rebuilds} translations in {seconds} s"
    );
}
