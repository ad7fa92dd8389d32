//! Hosts whose TLS is passed on: one relay for each, to the backend of its path `/`.
//!
//! Their routes are made as well, and closed, so that the host has its owner and nobody gets in without TLS.

use super::{Owner, Table, path_match};
use crate::diagnostic::Findings;
use crate::service;
use k8s_openapi::api::networking::v1::{IngressBackend, IngressRule};
use routing_table::{HostMatch, Relay, RouteId, Transport};

impl Table<'_> {
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
            if root.is_none() && taken == Some(&owner.object.key.to_string()) {
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
        let found = service::cluster(
            self.snapshot,
            self.settings,
            namespace,
            backend,
            Transport::Tcp,
        );
        let cluster = match found {
            Ok(cluster) => cluster,
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
        };
        self.passthrough.add(host, relay);
    }
}
