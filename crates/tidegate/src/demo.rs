//! `tidegate demo`: three echo backends and Ingresses over them, in one process, to try things out. It tries the first itself.

mod walk;

use crate::args::DemoArgs;
use crate::output;
use crate::{proxy, telemetry};
use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use controller::Change;
use http::{Request, Response};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use routing_table::ListenerId;
use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use translate::Kind;
use translate::manifest::{self, Item};
use walk::Walk;

/// The manifests of the demo. `${...}` is filled in at start.
const MANIFESTS: &str = include_str!("demo.yaml");
const BACKENDS: [&str; 3] = ["apple", "banana", "cherry"];

/// Runs the demo until a signal.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    telemetry::init("warn", crate::args::LogFormat::Text)?;
    let flags = [
        "tidegate".to_owned(),
        "serve".to_owned(),
        "--manifests=demo".to_owned(),
        format!("--http-addr={}", args.http_addr),
        format!("--https-addr={}", args.https_addr),
        format!("--admin-addr={}", args.admin_addr),
    ];
    let crate::args::Command::Serve(serve) = crate::args::Cli::parse_from(flags).command else {
        return Ok(());
    };
    let admin = args.admin_addr;
    proxy::block_on(async move {
        let mut text = MANIFESTS.to_owned();
        let mut running = Vec::new();
        for name in BACKENDS {
            let mut backend = Backend {
                name,
                addr: ([127, 0, 0, 1], 0).into(),
                task: None,
            };
            backend.start().await?;
            let port = backend.addr.port();
            text = text.replace(&format!("${{{name}}}"), &port.to_string());
            running.push(backend);
        }
        let (certificate, key) = certificate()?;
        text = text
            .replace("${certificate}", &indented(&certificate))
            .replace("${key}", &indented(&key));
        let tried_out = Arc::new(AtomicBool::new(false));
        let plan = proxy::Plan {
            settings: serve.proxy.translation(true),
            publish_service: None,
            lameduck: Duration::ZERO,
            stdout: Box::new(Later(Arc::clone(&tried_out))),
            started: Box::new(move |addresses| {
                let welcome = welcome(addresses, admin, &running);
                let walk = Walk {
                    http: address_of(addresses, "http"),
                    https: address_of(addresses, "https"),
                    certificate,
                };
                tokio::spawn(async move {
                    let tried = match running.get_mut(1) {
                        Some(banana) => walk.run(banana).await,
                        None => Ok(String::new()),
                    };
                    let tried = tried.unwrap_or_else(|error| format!("Not tried: {error:#}\n\n"));
                    output::print(format_args!("{welcome}{tried}{FAREWELL}"));
                    // Lines are written a little after their requests.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    tried_out.store(true, Ordering::Relaxed);
                });
            }),
        };
        proxy::run(&serve.proxy, plan, |context| async move {
            let objects: Vec<_> = manifest::parse(&text, false)
                .into_iter()
                .filter_map(|item| match item.ok()?.value {
                    Item::Object(object) => Some(object),
                    Item::Skipped { .. } => None,
                })
                .collect();
            for kind in Kind::ALL {
                let objects = objects
                    .iter()
                    .filter(|object| object.kind() == kind)
                    .cloned()
                    .collect();
                context.changes.send(Change::Replace(kind, objects)).await?;
            }
            context.shutdown.cancelled().await;
            Ok(())
        })
        .await
    })
}

/// Standard output from some moment on: the requests that the demo makes itself are not worth a line each.
struct Later(Arc<AtomicBool>);

impl Write for Later {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.load(Ordering::Relaxed) {
            true => io::stdout().write(bytes),
            false => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// A self-signed certificate for the demo's TLS host.
fn certificate() -> anyhow::Result<(String, String)> {
    let key = rcgen::KeyPair::generate()?;
    let certificate =
        rcgen::CertificateParams::new(vec!["shop.localhost".to_owned()])?.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

/// An echo backend.
struct Backend {
    name: &'static str,
    /// The port is 0 until it has started once; then it stays.
    addr: SocketAddr,
    task: Option<JoinHandle<()>>,
}

impl Backend {
    async fn start(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.addr).await;
        let listener = listener.context("cannot start an echo backend")?;
        self.addr = listener.local_addr()?;
        self.task = Some(tokio::spawn(echo(self.name, listener)));
        Ok(())
    }

    /// Ends it with all its connections, in the middle of whatever they do.
    async fn kill(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }
}

/// Answers every request with the name of the backend and what it was asked.
async fn echo(name: &'static str, listener: TcpListener) {
    // They end when this does.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let answer = move |request: Request<hyper::body::Incoming>| async move {
            let mut text = format!("I am {name}\n{} {}\n", request.method(), request.uri());
            for (field, value) in request.headers() {
                text.push_str(&format!(
                    "{field}: {}\n",
                    String::from_utf8_lossy(value.as_bytes())
                ));
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
        };
        connections.spawn(
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)),
        );
    }
}

/// What is said last.
const FAREWELL: &str = "Access log lines follow. Ctrl-C drains and stops.\n\n";

/// The address of a listener, which the demo has.
fn address_of(addresses: &[(ListenerId, SocketAddr)], id: &str) -> SocketAddr {
    let mut all = addresses.iter();
    let found = all.find(|(listener, _)| &*listener.0 == id);
    found.map_or_else(|| ([127, 0, 0, 1], 0).into(), |(_, addr)| *addr)
}

fn welcome(
    addresses: &[(ListenerId, SocketAddr)],
    admin: SocketAddr,
    backends: &[Backend],
) -> String {
    let port = |id: &str| address_of(addresses, id).port();
    let (http, https) = (port("http"), port("https"));
    let mut out = String::from("\nTidegate demo. Running now:\n\n");
    for (id, addr) in addresses {
        out.push_str(&format!("  {:<10} {addr}\n", id.0));
    }
    out.push_str(&format!("  {:<10} {admin}\n", "admin"));
    for Backend { name, addr, .. } in backends {
        out.push_str(&format!("  {name:<10} {addr}  (echo backend)\n"));
    }
    out.push_str(&format!(
        "\nTry:\n\n\
         \x20 curl http://shop.localhost:{http}/            # apple and banana in turn\n\
         \x20 curl http://shop.localhost:{http}/cart/7      # cherry: the longer path wins\n\
         \x20 curl http://shop.localhost:{http}/cart        # banana: the exact path wins over both\n\
         \x20 curl -k https://shop.localhost:{https}/        # the same over TLS, with the host's own certificate\n\
         \x20 curl http://blog.localhost:{http}/            # another host\n\
         \x20 curl -i http://unknown.localhost:{http}/      # 404: no route\n\
         \x20 curl http://{admin}/metrics\n\n\
         Without name resolution for *.localhost: curl -H 'Host: shop.localhost' http://127.0.0.1:{http}/\n\n"
    ));
    out
}
