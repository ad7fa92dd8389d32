//! Hosts whose TLS is passed on: one relay for each, to the backend of its path `/`.
//!
//! Their routes are made as well, and closed, so that the host has its owner and nobody gets in without TLS.

use super::{Owner, Table, path_match};
use crate::annotation::Policy;
use crate::authorities::Demand;
use crate::diagnostic::Findings;
use crate::snapshot::ObjectRef;
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend, IngressRule};
use routing_table::{HostMatch, Relay, RouteId, Transport};
use std::sync::Arc;

/// Whether TLS is passed on. Not where the Ingress asks for a protection that takes a request to see, since nobody here would
/// see one; and whatever comes in another way is answered 503. Who is let in by address is seen without.
pub(super) fn decide(
    policy: &mut Policy,
    demand: &Demand,
    object: &ObjectRef,
    findings: &mut Findings,
) {
    if !policy.passthrough {
        return;
    }
    let demands = !matches!(demand, Demand::Nothing);
    if demands {
        let message =
            "client certificates cannot be asked for where TLS is passed on; its routes answer 503";
        findings.error(
            object,
            "metadata.annotations",
            "PassthroughProtected",
            message.to_owned(),
        );
    }
    let limits = policy.filters.limits_rate();
    if limits {
        let message = "requests cannot be limited where TLS is passed on; its routes answer 503";
        findings.error(
            object,
            "metadata.annotations",
            "PassthroughProtected",
            message.to_owned(),
        );
    }
    policy.passthrough = policy.closed.is_none() && !demands && !limits;
    policy.closed = policy.closed.or(Some("ssl_passthrough"));
}

impl Table<'_> {
    /// Passes nothing on for hosts of whose clients another Ingress demands something: that holds for the whole host.
    pub(super) fn take_back(
        &mut self,
        ingresses: &[(&Arc<Ingress>, ObjectRef)],
        findings: &mut Findings,
    ) {
        for (host, (_, by)) in &self.demands {
            let Some(relay) = self.passthrough.remove(host) else {
                continue;
            };
            let (namespace, name) = (&*relay.id.namespace, &*relay.id.name);
            let owner = ingresses
                .iter()
                .find(|(_, object)| object.key.namespace == namespace && object.key.name == name);
            if let Some((_, object)) = owner {
                let message = format!(
                    "Ingress {by} demands something of the clients of {host}, so its TLS is not passed on"
                );
                let field = format!("spec.{}", relay.id.rule);
                findings.error(object, &field, "PassthroughProtected", message);
            }
        }
    }

    /// Passes on the TLS connections of a rule's host, which the Ingress has.
    pub(super) fn pass_on(
        &mut self,
        owner: &Owner<'_>,
        position: usize,
        rule: &IngressRule,
        default_backend: Option<&IngressBackend>,
        host: &HostMatch,
        findings: &mut Findings,
    ) {
        let field = format!("spec.rules[{position}]");
        if *host == HostMatch::Any {
            let message = "TLS can be passed on for a host only; the rule is not served".to_owned();
            findings.error(owner.object, &field, "PassthroughWithoutHost", message);
            return;
        }
        let mut root = None;
        let paths = rule.http.iter().flat_map(|http| &http.paths);
        for (index, path) in paths.enumerate() {
            let name = format!("rules[{position}].http.paths[{index}]");
            let Ok(matcher) = path_match(owner, path) else {
                continue;
            };
            if matcher.key() != "/" && !matcher.key().is_empty() {
                let message = "TLS is passed on whatever the path; only the backend of / is used";
                let field = format!("spec.{name}");
                findings.warning(owner.object, &field, "PassthroughPath", message.to_owned());
                continue;
            }
            let taken = self.taken.get(&(host.clone(), matcher));
            // Another Ingress that is older may have it; then its owner was told so already.
            let is_own = |taken: &(String, String)| taken.0 == owner.object.key.to_string();
            if root.is_none() && taken.is_some_and(is_own) {
                root = Some((name, &path.backend));
            }
        }
        if rule.http.is_none() {
            root = default_backend.map(|backend| ("defaultBackend".to_owned(), backend));
        }
        // Whatever is wrong with the backend, its route has said it.
        let Some((rule, Some(backend))) = root.map(|(rule, b)| (rule, b.service.as_ref())) else {
            return;
        };
        let namespace = &owner.object.key.namespace;
        let found = self.services.cluster(namespace, backend, Transport::Tcp);
        let cluster = match found {
            Ok((cluster, _)) => cluster,
            Err(error) => {
                let message = format!("{}; TLS is not passed on", error.message);
                findings.error(owner.object, &field, error.reason, message);
                return;
            }
        };
        let relay = Relay {
            id: RouteId {
                kind: "Ingress",
                namespace: owner.namespace.clone(),
                name: owner.name.clone(),
                rule: rule.into(),
            },
            cluster: self.clusters.add(cluster),
            limits: self.settings.tcp_limits,
            proxy_header: owner.policy.proxy_header,
            access: owner.policy.filters.access(),
        };
        self.passthrough.add(host, relay);
    }
}
