//! What vectors run against: one tidegate, recording backends behind it, and a second tenant whose requests must not suffer.

use super::canary::{self, CANARY, Canary};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;
use test_support::Tidegate;
use test_support::raw::{self, Plan};
use test_support::recorder::{Act, Recorder};
use tokio::sync::Mutex;

/// Starting picks free ports, so two that start at once could pick the same.
static STARTING: Mutex<()> = Mutex::const_new(());

/// One rule of an Ingress: host, path, type of the path, service.
pub(crate) type Rule = (&'static str, &'static str, &'static str, &'static str);

/// Hosts, their annotations and the backends behind them.
#[derive(Clone)]
pub(crate) struct Setup {
    /// One Ingress for each list of rules, in order of age.
    pub(crate) ingresses: Vec<(&'static str, Vec<Rule>)>,
    /// Names of backends.
    pub(crate) backends: Vec<&'static str>,
    /// Hosts that have a certificate of their own; each is the first host of an Ingress.
    pub(crate) certificates: Vec<&'static str>,
    /// Manifests that come as they are.
    pub(crate) more: String,
}

impl Setup {
    /// One host `a.test`, one backend `a`, and another tenant's `b.test`.
    pub(crate) fn plain() -> Self {
        Self {
            ingresses: vec![
                ("", vec![("a.test", "/", "Prefix", "a")]),
                ("", vec![("b.test", "/", "Prefix", "b")]),
                (
                    "tidegate.dev/first-byte-timeout: 2s, tidegate.dev/idle-timeout: 2s",
                    vec![("slow.test", "/", "Prefix", "a")],
                ),
                (
                    "tidegate.dev/max-request-body: '0'",
                    vec![("big.test", "/", "Prefix", "a")],
                ),
            ],
            backends: vec!["a", "b"],
            certificates: Vec::new(),
            more: String::new(),
        }
    }
}

/// A running stand.
pub(crate) struct Stand {
    pub(crate) tidegate: Tidegate,
    pub(crate) recorders: Vec<Recorder>,
    pub(crate) access_log: PathBuf,
    pub(crate) canary: Canary,
    /// What every connection to the plain port begins with.
    greeting: &'static str,
    /// Removed when the stand is dropped.
    _directory: tempfile::TempDir,
}

/// Whether `tidegate serve` has this flag. Some limits cannot be set yet; vectors that would wait for minutes then say so
/// instead.
pub(crate) fn has_flag(name: &str) -> bool {
    static HELP: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let help = HELP.get_or_init(|| {
        let mut command = std::process::Command::new(test_support::process::binary());
        let output = command.args(["serve", "--help"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    help.split_whitespace().any(|word| word == name)
}

impl Stand {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(name: &str, setup: &Setup, flags: &[&str]) -> Self {
        Self::start_at(name, Ipv4Addr::LOCALHOST.into(), setup, flags).await
    }

    /// As [`Stand::start`], listening where every client's address is IPv4 mapped into IPv6.
    pub(crate) async fn start_mapped(name: &str, setup: &Setup, flags: &[&str]) -> Self {
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        Self::start_at(name, mapped.into(), setup, flags).await
    }

    async fn start_at(name: &str, ip: IpAddr, setup: &Setup, flags: &[&str]) -> Self {
        let mut recorders = Vec::new();
        for name in &setup.backends {
            recorders.push(Recorder::start(name).await);
        }
        let canary = Canary::start().await;
        let directory = tempfile::tempdir().unwrap();
        let mut text = ingress(9, "", &[(CANARY, "/", "Prefix", "canary")]);
        for (age, (annotations, rules)) in setup.ingresses.iter().enumerate() {
            text += &ingress(10 + age, annotations, rules);
            let host = rules[0].0;
            if setup.certificates.contains(&host) {
                text += &secured(10 + age, host);
            }
        }
        text += &setup.more;
        text += &service("canary", canary.backend.addr.port());
        for recorder in &recorders {
            text += &service(recorder.name(), recorder.addr.port());
        }
        let manifests = directory.path().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        std::fs::write(manifests.join("all.yaml"), text).unwrap();
        let access_log = directory.path().join("access.log");
        let manifests = format!("--manifests={}", manifests.display());
        let log = format!("--access-log={}", access_log.display());
        let mut args = vec!["serve", &manifests, &log, "--workers=1"];
        args.extend(flags);
        let tidegate = {
            let _one_at_a_time = STARTING.lock().await;
            Tidegate::start_at(&format!("vectors-{name}"), ip, &args)
                .ready()
                .await
        };
        Self {
            tidegate,
            recorders,
            access_log,
            canary,
            greeting: match flags.contains(&"--proxy-protocol") {
                true => "PROXY TCP4 127.0.0.1 127.0.0.1 1000 80\r\n",
                false => "",
            },
            _directory: directory,
        }
    }

    /// The first backend.
    pub(crate) fn backend(&self) -> &Recorder {
        &self.recorders[0]
    }

    /// Sets the script of the first backend; the others answer 200. All forget what they saw.
    pub(crate) fn begin(&self, script: Vec<Act>) {
        for recorder in &self.recorders[1..] {
            recorder.begin(Vec::new());
        }
        self.backend().begin(script);
    }

    /// Bytes seen by all recording backends.
    pub(crate) fn upstream_bytes(&self) -> u64 {
        self.recorders.iter().map(|one| one.seen().bytes()).sum()
    }

    /// Lets the other tenant ask all the time, until it is told to rest.
    pub(crate) async fn begin_canary(&self) {
        self.canary.ask(self.tidegate.http, self.greeting).await;
    }

    /// One request of the other tenant, on a connection of its own.
    pub(crate) async fn canary_once(&self) -> Result<(), String> {
        self.canary_at("/").await
    }

    /// As [`Stand::canary_once`], for this path.
    pub(crate) async fn canary_at(&self, path: &str) -> Result<(), String> {
        let before = self.canary.backend.requests();
        let bytes = canary::request(self.greeting, path);
        let mut stream = raw::connect(self.tidegate.http).await;
        let got = raw::exchange(&mut stream, Plan::new(bytes)).await;
        // Others may ask at the same time.
        let counted = self.canary.backend.requests() > before;
        if got.statuses() != [200] || got.answers[0].body != b"canary" || !counted {
            return Err(format!("canary: {}", got.summary()));
        }
        Ok(())
    }

    /// Lines of the access log, once the line of this path is there.
    pub(crate) async fn logged_until(&self, path: &str) -> Result<String, String> {
        let wanted = format!("\"path\":\"{path}\"");
        for _ in 0..500 {
            let bytes = std::fs::read(&self.access_log).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if text.contains(&wanted) {
                return Ok(text);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("no line for {path} in the access log"))
    }
}

fn ingress(age: usize, annotations: &str, rules: &[Rule]) -> String {
    let mut text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: i{age}, creationTimestamp: '2026-01-01T00:00:{age:02}Z', \
         annotations: {{{annotations}}}}}\nspec:\n  rules:\n"
    );
    for (host, path, path_type, service) in rules {
        let _ = writeln!(
            text,
            "  - host: '{host}'\n    http: {{paths: [{{path: '{path}', pathType: {path_type}, backend: {{service: {{name: {service}, \
             port: {{number: 80}}}}}}}}]}}"
        );
    }
    text + "---\n"
}

/// An Ingress that only gives a host its certificate, and the Secret with it.
fn secured(age: usize, host: &str) -> String {
    let (certificate, key) = test_support::certificate::self_signed(&[host]);
    let indented = |pem: &str| pem.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: tls{age}}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    {}\n  \
         tls.key: |\n    {}\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: tls{age}}}\nspec:\n  \
         tls: [{{hosts: ['{host}'], secretName: tls{age}}}]\n  rules: [{{host: '{host}'}}]\n---\n",
        indented(&certificate),
        indented(&key)
    )
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{{port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n---\n"
    )
}
