//! A fake Kubernetes API server, in process and on a real socket: lists in pages, watches, status, conflicts, and faults.
//!
//! It speaks plain HTTP with untyped JSON and checks nothing about objects, so a test can store what a real server would
//! refuse. What it does keep to are the rules a client leans on: one revision counter, watches that replay from a revision,
//! 410 behind a compaction, 409 for a stale write, writes without a difference that make no event.

mod http;
mod state;

use serde_json::Value;
use state::{Signal, State};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// `networking.k8s.io/v1` Ingresses.
pub const INGRESSES: &str = "networking.k8s.io/v1/ingresses";
/// `networking.k8s.io/v1` IngressClasses.
pub const INGRESS_CLASSES: &str = "networking.k8s.io/v1/ingressclasses";
/// `v1` Services.
pub const SERVICES: &str = "v1/services";
/// `v1` Secrets.
pub const SECRETS: &str = "v1/secrets";
/// ConfigMaps.
pub const CONFIG_MAPS: &str = "v1/configmaps";
/// `discovery.k8s.io/v1` EndpointSlices.
pub const ENDPOINT_SLICES: &str = "discovery.k8s.io/v1/endpointslices";
/// `coordination.k8s.io/v1` Leases.
pub const LEASES: &str = "coordination.k8s.io/v1/leases";
/// `events.k8s.io/v1` Events.
pub const EVENTS: &str = "events.k8s.io/v1/events";

/// What is done to a request that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// One object.
    Get,
    /// All objects.
    List,
    /// A stream of changes.
    Watch,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The bearer token, which these tests use as the name of a replica.
    pub user: String,
    /// What was asked for.
    pub verb: Verb,
    /// For example `networking.k8s.io/v1/ingresses` or `networking.k8s.io/v1/ingresses/status`.
    pub resource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty.
    pub name: String,
    /// The HTTP status it was answered with.
    pub status: u16,
}

/// Answers some requests with an error.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which requests.
    pub verb: Verb,
    /// Of which resource, status and all.
    pub resource: &'static str,
    /// The status to answer with.
    pub status: u16,
    /// How many more requests.
    pub times: usize,
}

/// Everything stored, to be put back with [`ApiServer::restore`].
#[derive(Debug, Clone)]
pub struct Backup(state::Stored);

/// A running fake API server. Dropping it closes its socket and its connections.
#[derive(Debug)]
pub struct ApiServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Ends the accept loop and every connection of it.
    running: Mutex<CancellationToken>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    signals: broadcast::Sender<Signal>,
    /// Cancelled: this connection neither reads nor writes any more, without being closed.
    dead: Mutex<CancellationToken>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl ApiServer {
    /// A server without objects, on a port of its own on 127.0.0.1.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a loopback port is free");
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            signals: broadcast::channel(4096).0,
            dead: Mutex::default(),
        });
        let server = Self {
            addr,
            shared,
            running: Mutex::default(),
            tasks: TaskTracker::new(),
        };
        server.serve(listener);
        server
    }

    fn serve(&self, listener: TcpListener) {
        let running = self.running.lock().unwrap().clone();
        self.tasks
            .spawn(http::accept(listener, Arc::clone(&self.shared), running));
    }

    /// A kubeconfig for it. Requests made with it are those of `user`.
    pub fn kubeconfig(&self, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: fake\n\
             clusters: [{{name: fake, cluster: {{server: 'http://{}'}}}}]\n\
             users: [{{name: fake, user: {{token: '{user}'}}}}]\n\
             contexts: [{{name: fake, context: {{cluster: fake, user: fake}}}}]\n",
            self.addr
        )
    }

    /// Creates or replaces an object, status and all, as its owner would; gives it back as it is stored.
    pub fn put(&self, object: Value) -> Value {
        let stored = self.shared.state().put(object);
        self.wake();
        stored
    }

    /// Deletes an object; says whether it was there.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) -> bool {
        let deleted = self
            .shared
            .state()
            .delete(resource, namespace, name)
            .is_some();
        self.wake();
        deleted
    }

    /// An object as it is stored.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.shared.state().get(resource, namespace, name).cloned()
    }

    /// All objects of a resource.
    pub fn list(&self, resource: &str) -> Vec<Value> {
        self.shared
            .state()
            .list(resource)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Every request so far, in the order they were answered. A watch stands here when it starts.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// How many requests there were.
    pub fn count(&self, verb: Verb, resource: &str) -> usize {
        self.shared
            .state()
            .seen
            .iter()
            .filter(|seen| seen.verb == verb && seen.resource == resource)
            .count()
    }

    /// Answers some of the next requests with an error.
    pub fn fail(&self, fault: Fault) {
        self.shared.state().faults.push(fault);
    }

    /// Takes back every fault.
    pub fn heal(&self) {
        self.shared.state().faults.clear();
    }

    /// Answers the next lists of a resource with nothing in it.
    pub fn hide(&self, resource: &'static str, times: usize) {
        self.shared.state().hidden.push((resource, times));
    }

    /// Forgets the past: whoever resumes a watch from before now is told 410.
    pub fn compact(&self) {
        self.shared.state().compact();
    }

    /// Ends every watch of a resource with a 410 event.
    pub fn expire_watches(&self, resource: &'static str) {
        let _ = self.shared.signals.send(Signal::Expire(resource));
    }

    /// Ends every watch of a resource without a word.
    pub fn drop_watches(&self, resource: &'static str) {
        let _ = self.shared.signals.send(Signal::Drop(resource));
    }

    /// Sends this line, whatever it says, on every watch of a resource.
    pub fn send_line(&self, resource: &'static str, line: &str) {
        let _ = self
            .shared
            .signals
            .send(Signal::Line(resource, line.to_owned()));
    }

    /// Sends the current revision on every watch.
    pub fn bookmark(&self) {
        let _ = self.shared.signals.send(Signal::Bookmark);
    }

    /// Every connection there is stays open and says nothing more, for good; new ones work.
    pub fn blackhole_connections(&self) {
        std::mem::take(&mut *self.shared.dead.lock().unwrap()).cancel();
    }

    /// Closes the socket and every connection; objects stay.
    pub async fn stop(&self) {
        std::mem::take(&mut *self.running.lock().unwrap()).cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    /// Opens the socket again, on the same port.
    pub async fn resume(&self) {
        self.serve(
            TcpListener::bind(self.addr)
                .await
                .expect("our port is still free"),
        );
    }

    /// Everything stored now.
    pub fn backup(&self) -> Backup {
        Backup(self.shared.state().stored.clone())
    }

    /// Puts back what was stored, with the revision it had, as a restored etcd does.
    pub fn restore(&self, backup: Backup) {
        self.shared.state().restore(backup.0);
    }

    fn wake(&self) {
        let _ = self.shared.signals.send(Signal::Changed);
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.running.lock().unwrap().cancel();
    }
}
