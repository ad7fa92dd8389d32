//! What the pods may do, found from the roles and bindings of a rendering. Each right is one that the controller uses.

use super::rendered::equal;
use super::{Check, RELEASE, render};
use std::collections::BTreeSet;

pub(super) const CHECKS: [Check; 5] = [
    ("rights: cluster", in_a_cluster),
    ("rights: scope", in_a_scope),
    ("rights: secretNamespaces", on_secrets),
    ("rights: ConfigMaps of relayed ports only", on_config_maps),
    ("rights: nodes only without a Service", on_nodes),
];

/// What a namespace that is served is read and written with.
fn served(place: &str) -> Vec<String> {
    [
        "get,list,watch ingresses.networking.k8s.io",
        "patch ingresses/status.networking.k8s.io",
        "get,list,watch services",
        "get,list,watch endpointslices.discovery.k8s.io",
        "get,list,watch backendpolicies.tidegate.dev",
        "patch backendpolicies/status.tidegate.dev",
        "create,patch events.events.k8s.io",
    ]
    .iter()
    .map(|right| format!("{place}: {right}"))
    .collect()
}

/// Checks that the controller has these rights, those it always has, and no others.
#[track_caller]
fn rights(values: &str, expected: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
    let always = [
        "cluster: get,list,watch ingressclasses.networking.k8s.io",
        "tidegate: create leases.coordination.k8s.io",
        "tidegate: get,update leases.coordination.k8s.io tidegate-leader",
    ];
    let expected: BTreeSet<_> = expected
        .into_iter()
        .chain(always.map(str::to_owned))
        .collect();
    equal(
        &format!("with {values}: what the controller may do"),
        render(values)?.rights()?,
        expected,
    )
}

fn in_a_cluster() -> anyhow::Result<()> {
    let secrets = "cluster: get,list,watch secrets".to_owned();
    rights("{}", served("cluster").into_iter().chain([secrets]))
}

fn in_a_scope() -> anyhow::Result<()> {
    let own = "tidegate: get,list,watch secrets".to_owned();
    rights(
        "controller: {scope: {enabled: true}}",
        served(RELEASE).into_iter().chain([own]),
    )?;
    let other = "shop: get,list,watch secrets".to_owned();
    rights(
        "controller: {scope: {enabled: true, namespace: shop}, publishService: {pathOverride: shop/edge}}",
        served("shop").into_iter().chain([other]),
    )
}

fn on_secrets() -> anyhow::Result<()> {
    let secrets = ["shop", "infra"].map(|place| format!("{place}: get,list,watch secrets"));
    rights(
        "controller: {secretNamespaces: [shop, infra]}",
        served("cluster").into_iter().chain(secrets),
    )?;
    let secrets = ["infra: get,list,watch secrets".to_owned()];
    rights(
        "controller: {scope: {enabled: true}, secretNamespaces: [infra]}",
        served(RELEASE).into_iter().chain(secrets),
    )
}

fn on_config_maps() -> anyhow::Result<()> {
    let secrets = "cluster: get,list,watch secrets".to_owned();
    for (values, names) in [
        ("tcp: {'9000': shop/db:5432}", "tidegate-tcp"),
        (
            "{tcp: {'9000': shop/db:5432}, udp: {'53': shop/dns:53}}",
            "tidegate-tcp,tidegate-udp",
        ),
    ] {
        let named = format!("tidegate: get,list,watch configmaps {names}");
        rights(
            values,
            served("cluster")
                .into_iter()
                .chain([secrets.clone(), named]),
        )?;
    }
    let more = [
        "tidegate: create,patch events.events.k8s.io",
        "tidegate: get,list,watch configmaps tidegate-udp",
        "shop: get,list,watch secrets",
    ];
    let values = "{udp: {'53': shop/dns:53}, controller: {publishService: {enabled: false}, scope: {enabled: true, namespace: shop}}}";
    let nodes = "cluster: get nodes".to_owned();
    let more = more.map(str::to_owned);
    rights(
        values,
        served("shop").into_iter().chain(more).chain([nodes]),
    )
}

fn on_nodes() -> anyhow::Result<()> {
    for values in [
        "{publishService: {enabled: false}}",
        "{service: {enabled: false}}",
    ] {
        let nodes = ["cluster: get nodes", "cluster: get,list,watch secrets"].map(str::to_owned);
        rights(
            &format!("controller: {values}"),
            served("cluster").into_iter().chain(nodes),
        )?;
    }
    Ok(())
}
