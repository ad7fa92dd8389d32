//! The test cluster as tests see it: a client, objects in short, and Tidegate under its own ServiceAccount.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use test_support::Tidegate;
use tokio::sync::{Mutex, MutexGuard};

/// One test of the cluster at a time: some of them stop its API server.
static TURN: Mutex<()> = Mutex::const_new(());

/// A cluster to test with.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    directory: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// The cluster we run in; `None`, said aloud, where there is none.
    pub(crate) async fn enter() -> Option<Self> {
        let Some(directory) = std::env::var_os("TIDEGATE_CLUSTER_DIR") else {
            assert!(
                std::env::var_os("TIDEGATE_REQUIRE_CLUSTER").is_none_or(|v| v.is_empty()),
                "TIDEGATE_REQUIRE_CLUSTER is set, but this is not a test cluster"
            );
            eprintln!("skipped: not inside a test cluster (run `cargo xtask test`)");
            return None;
        };
        let turn = TURN.lock().await;
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::try_default().await.unwrap();
        let cluster = Self {
            client,
            directory: directory.into(),
            _turn: turn,
        };
        cluster.install();
        Some(cluster)
    }

    /// Applies what the chart renders: ServiceAccount, roles, class and all.
    fn install(&self) {
        let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/tidegate.yaml");
        self.kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            manifests,
        ]);
    }

    /// Runs kubectl as the cluster's administrator; gives its output.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        let output = Command::new("kubectl").args(args).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {args:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A kubeconfig with a token of the ServiceAccount that the chart made, so that a missing permission is a failed test.
    fn kubeconfig(&self) -> PathBuf {
        let token = self.kubectl(&[
            "create",
            "token",
            "tidegate",
            "--namespace=tidegate",
            "--duration=2h",
        ]);
        let admin = self.kubectl(&[
            "config",
            "view",
            "--raw",
            "--output=jsonpath={.clusters[0].cluster.server}",
        ]);
        let authority = self.directory.join("certificates/apiserver.crt");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "tidegate",
            "clusters": [{"name": "c", "cluster": {"server": admin, "certificate-authority": authority}}],
            "users": [{"name": "u", "user": {"token": token.trim()}}],
            "contexts": [{"name": "tidegate", "context": {"cluster": "c", "user": "u"}}],
        });
        let path =
            std::env::temp_dir().join(format!("tidegate-kubeconfig-{}.json", std::process::id()));
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Tidegate as a pod would run it, ready.
    pub(crate) async fn tidegate(&self, name: &str, args: &[&str]) -> Tidegate {
        self.tidegate_at(name, Ipv4Addr::LOCALHOST, args).await
    }

    /// As [`Cluster::tidegate`], serving at this address.
    pub(crate) async fn tidegate_at(&self, name: &str, ip: Ipv4Addr, args: &[&str]) -> Tidegate {
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig().display());
        let identity = format!("--identity={name}");
        let usual = [
            "controller",
            &kubeconfig,
            &identity,
            "--lease-namespace=tidegate",
            "--access-log=off",
        ];
        let args: Vec<&str> = usual.iter().chain(args).copied().collect();
        Tidegate::start_at(name, ip, &args).ready().await
    }

    /// A namespace of this name, new.
    pub(crate) async fn namespace(&self, name: &str) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let wanted = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        api.patch(
            name,
            &PatchParams::apply("test").force(),
            &Patch::Apply(wanted),
        )
        .await
        .unwrap();
    }

    /// Writes an object.
    pub(crate) async fn put<K>(&self, namespace: &str, mut object: Value)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        object["apiVersion"] = K::api_version(&()).as_ref().into();
        object["kind"] = K::kind(&()).as_ref().into();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        api.patch(
            &name,
            &PatchParams::apply("test").force(),
            &Patch::Apply(object),
        )
        .await
        .unwrap();
    }

    /// Deletes an object.
    pub(crate) async fn delete<K>(&self, namespace: &str, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// The addresses in an Ingress's status.
    pub(crate) async fn status(&self, namespace: &str, name: &str) -> Vec<String> {
        let api: Api<Ingress> = Api::namespaced(self.client.clone(), namespace);
        let status = api
            .get(name)
            .await
            .unwrap()
            .status
            .and_then(|status| status.load_balancer)
            .and_then(|lb| lb.ingress);
        status
            .unwrap_or_default()
            .into_iter()
            .filter_map(|one| one.ip.or(one.hostname))
            .collect()
    }

    /// Kills a part of the cluster: `apiserver`, `coredns`.
    pub(crate) fn stop(&self, part: &str) {
        let pid = std::fs::read_to_string(self.directory.join(format!("{part}.pid"))).unwrap();
        let status = Command::new("kill").args(["-9", pid.trim()]).status();
        assert!(status.unwrap().success());
    }

    /// Starts it again.
    pub(crate) fn start(&self, part: &str) {
        let script = self.directory.join(format!("{part}.sh"));
        assert!(Command::new("sh").arg(script).status().unwrap().success());
    }
}

/// A Service without a selector.
pub(crate) fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}})
}

/// A slice of a Service with these addresses, each with its conditions.
pub(crate) fn slice(service: &str, port: u16, endpoints: &[(&str, Value)]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, conditions)| json!({"addresses": [address], "conditions": conditions}))
        .collect();
    json!({
        "metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": port, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

/// Conditions of a ready endpoint.
pub(crate) fn ready() -> Value {
    json!({"ready": true, "serving": true, "terminating": false})
}

/// Conditions of an endpoint that terminates but still serves.
pub(crate) fn terminating() -> Value {
    json!({"ready": false, "serving": true, "terminating": true})
}

/// An Ingress of ours: (host, path, path type, service) each.
pub(crate) fn ingress(name: &str, rules: &[(&str, &str, &str, &str)]) -> Value {
    let rules: Vec<Value> = rules
        .iter()
        .map(|(host, path, kind, service)| {
            let backend = json!({"service": {"name": service, "port": {"name": "http"}}});
            let mut rule =
                json!({"http": {"paths": [{"path": path, "pathType": kind, "backend": backend}]}});
            if !host.is_empty() {
                rule["host"] = (*host).into();
            }
            rule
        })
        .collect();
    json!({"metadata": {"name": name}, "spec": {"ingressClassName": "tidegate", "rules": rules}})
}
