//! Which Ingresses are ours.

use crate::diagnostic::{Findings, Severity, printable};
use crate::settings::Settings;
use crate::snapshot::{Kind, ObjectKey, ObjectRef, Snapshot};
use k8s_openapi::api::networking::v1::Ingress;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The deprecated way to name a class.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// On the IngressClass that Ingresses without a class belong to.
const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// An Ingress that is not ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PassedOver {
    /// Its namespace and name.
    pub key: ObjectKey,
    /// The class it names, if it does.
    pub class: Option<String>,
    /// The controller that the IngressClass of that name names, if there is one.
    pub controller: Option<String>,
}

/// Why, and what to do about it.
impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ingress {} is not served: ", self.key)?;
        let shown = |text: &str| printable(text, 80);
        match (&self.class, &self.controller) {
            (None, _) => f.write_str(
                "it has no class, and no IngressClass of ours is the default; set spec.ingressClassName",
            ),
            (Some(class), None) => {
                let class = shown(class);
                write!(f, "its class is {class:?}; --ingress-class {class} would serve it")
            }
            (Some(class), Some(controller)) => {
                let (class, controller) = (shown(class), shown(controller));
                write!(
                    f,
                    "its class {class:?} is of the controller {controller:?}; --controller-name {controller} would serve it"
                )
            }
        }
    }
}

/// The Ingresses that are not among the claimed, which are sorted, by name.
pub(crate) fn passed_over(snapshot: &Snapshot, claimed: &[ObjectKey]) -> Vec<PassedOver> {
    let others = snapshot.ingresses.iter();
    let others = others.filter(|(key, _)| claimed.binary_search(key).is_err());
    others
        .map(|(key, ingress)| {
            let (named, annotated) = classes_of(ingress);
            let class = named.or(annotated).map(ToOwned::to_owned);
            let object = class
                .as_ref()
                .and_then(|class| snapshot.ingress_classes.get(class));
            let spec = object.and_then(|object| object.spec.as_ref());
            PassedOver {
                key: key.clone(),
                controller: spec.and_then(|spec| spec.controller.clone()),
                class,
            }
        })
        .collect()
}

/// The classes that an Ingress names: in its field, which counts where both are there, and in its annotation.
fn classes_of(ingress: &Ingress) -> (Option<&str>, Option<&str>) {
    let spec = ingress.spec.as_ref();
    let named = spec.and_then(|spec| spec.ingress_class_name.as_deref());
    let annotations = ingress.metadata.annotations.as_ref();
    let annotated = annotations.and_then(|all| all.get(CLASS_ANNOTATION));
    (named, annotated.map(String::as_str))
}

/// The Ingresses that are ours, oldest first. Those without a creation time (in files) come first, by name.
pub(crate) fn claimed<'a>(
    snapshot: &'a Snapshot,
    settings: &Settings,
    findings: &mut Findings,
) -> Vec<&'a Arc<Ingress>> {
    let mut ours: BTreeSet<&str> = BTreeSet::new();
    let mut default = settings.serve_classless;
    for (name, class) in &snapshot.ingress_classes {
        let spec = class.spec.as_ref();
        if spec.and_then(|spec| spec.controller.as_deref()) != Some(&*settings.controller) {
            continue;
        }
        ours.insert(name);
        let annotations = class.metadata.annotations.as_ref();
        default |= annotations
            .and_then(|all| all.get(DEFAULT_ANNOTATION))
            .is_some_and(|value| value == "true");
        if spec.is_some_and(|spec| spec.parameters.is_some()) {
            let object = ObjectRef {
                kind: Kind::IngressClass,
                key: ObjectKey::new("", name),
                uid: class.metadata.uid.clone().unwrap_or_default(),
            };
            let message = "parameters are not used by this controller and were ignored".to_owned();
            findings.add(
                &object,
                "spec.parameters",
                Severity::Warning,
                "UnsupportedParameters",
                message,
            );
        }
    }
    // Manifests from files need not bring an IngressClass.
    if settings.serve_classless && !snapshot.ingress_classes.contains_key(&settings.class) {
        ours.insert(&settings.class);
    }
    let is_ours = |ingress: &Ingress| match classes_of(ingress) {
        (Some(name), _) => ours.contains(name),
        (None, Some(name)) => name == settings.class || ours.contains(name),
        (None, None) => default,
    };
    let mut claimed: Vec<_> = snapshot
        .ingresses
        .values()
        .filter(|ingress| is_ours(ingress))
        .collect();
    claimed.sort_by_cached_key(|ingress| {
        (
            ingress.metadata.creation_timestamp.clone().map(|t| t.0),
            ObjectKey::of(&ingress.metadata),
        )
    });
    claimed
}
