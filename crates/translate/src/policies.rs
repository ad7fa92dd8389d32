//! How the endpoints of each Service are chosen and judged, as its annotations and the `BackendPolicy`s for it say.
//!
//! Of two policies for the same thing the older one wins; one for a port goes before one for the Service, and both go before
//! the Service's annotations.

use crate::annotation;
use crate::diagnostic::Findings;
use crate::snapshot::{Kind, ObjectKey, ObjectRef, Snapshot};
use api::{BackendPolicy, BackendPolicySpec, TargetRef};
use k8s_openapi::api::core::v1::Service;
use policy::PolicySpec;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// A Service, and one of its ports or all of them.
type Target = (ObjectKey, Option<String>);

/// What is declared for Services.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    annotated: BTreeMap<ObjectKey, PolicySpec>,
    /// With the name of the policy.
    objects: BTreeMap<Target, (ObjectKey, PolicySpec)>,
}

/// What became of a `BackendPolicy`, for its condition `Accepted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// `Accepted`, or one word for what is wrong.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// The `metadata.generation` that was looked at.
    pub generation: Option<i64>,
}

impl Acceptance {
    /// Whether it has all the effect it asks for.
    pub fn is_accepted(&self) -> bool {
        self.reason == "Accepted"
    }
}

impl Policies {
    /// Reads everything there is, and says what became of each `BackendPolicy`.
    pub(crate) fn read(
        snapshot: &Snapshot,
        findings: &mut Findings,
    ) -> (Self, BTreeMap<ObjectKey, Acceptance>) {
        let mut policies = Self::default();
        for (key, service) in &snapshot.services {
            let object = ObjectRef {
                kind: Kind::Service,
                key: key.clone(),
                uid: service.metadata.uid.clone().unwrap_or_default(),
            };
            let annotations = service.metadata.annotations.as_ref();
            let spec = annotation::of_service(annotations, &object, findings);
            if spec != PolicySpec::default() {
                policies.annotated.insert(key.clone(), spec);
            }
        }
        let mut oldest_first: Vec<_> = snapshot.backend_policies.iter().collect();
        oldest_first.sort_by_key(|(key, policy)| {
            let created = policy.metadata.creation_timestamp.clone();
            (created.is_none(), created, (*key).clone())
        });
        let mut acceptances = BTreeMap::new();
        for (key, policy) in oldest_first {
            let (reason, message) = policies.add(snapshot, key, policy);
            if reason != "Accepted" {
                let object = ObjectRef {
                    kind: Kind::BackendPolicy,
                    key: key.clone(),
                    uid: policy.metadata.uid.clone().unwrap_or_default(),
                };
                findings.error(&object, "", reason, message.clone());
            }
            let acceptance = Acceptance {
                reason,
                message,
                generation: policy.metadata.generation,
            };
            acceptances.insert(key.clone(), acceptance);
        }
        (policies, acceptances)
    }

    fn add(
        &mut self,
        snapshot: &Snapshot,
        key: &ObjectKey,
        policy: &Arc<BackendPolicy>,
    ) -> (&'static str, String) {
        let spec = match BackendPolicySpec::read(&policy.spec) {
            Ok(spec) => spec,
            Err(reason) => return ("Invalid", format!("{reason}; it has no effect")),
        };
        let mut problems = Vec::new();
        let mut worst = "Accepted";
        for target in spec.target_refs {
            let service = ObjectKey::new(&key.namespace, &target.name);
            if let Some(missing) = missing(&target, snapshot.services.get(&service)) {
                worst = "TargetNotFound";
                problems.push(missing);
                // It takes effect when there is one: nobody else gets the place meanwhile.
            }
            match self.objects.entry((service, target.section_name)) {
                Entry::Vacant(free) => drop(free.insert((key.clone(), spec.policy.clone()))),
                // The same target twice in one policy.
                Entry::Occupied(taken) if taken.get().0 == *key => {}
                Entry::Occupied(taken) => {
                    worst = "Conflicted";
                    let ((service, _), (winner, _)) = (taken.key(), taken.get());
                    problems.push(format!(
                        "BackendPolicy {winner} is older and is for Service {service} too"
                    ));
                }
            }
        }
        match problems.as_slice() {
            [] => (worst, "It is in force".to_owned()),
            problems => (worst, problems.join("; ")),
        }
    }

    /// What is declared for a port of a Service.
    pub(crate) fn of(&self, service: &ObjectKey, port: Option<&str>) -> PolicySpec {
        let object = |port: Option<&str>| {
            let target = (service.clone(), port.map(str::to_owned));
            self.objects.get(&target).map(|(_, spec)| spec.clone())
        };
        let of_port = port.and_then(|port| object(Some(port)));
        [of_port, object(None)]
            .into_iter()
            .flatten()
            .chain(self.annotated.get(service).cloned())
            .reduce(|above, below| above.laid_over(&below))
            .unwrap_or_default()
    }
}

/// What of a target there is not.
fn missing(target: &TargetRef, service: Option<&Arc<Service>>) -> Option<String> {
    let name = &target.name;
    let Some(service) = service else {
        return Some(format!("Service {name} does not exist"));
    };
    let section = target.section_name.as_deref()?;
    let ports = service.spec.iter().flat_map(|spec| &spec.ports).flatten();
    let mut named = ports.filter(|port| port.name.as_deref() == Some(section));
    match named.next() {
        Some(_) => None,
        None => Some(format!("Service {name} has no port named {section:?}")),
    }
}
