//! `tidegate demo`: three echo backends and Ingresses over them, in one process, to try things out.

use crate::args::DemoArgs;
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
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use translate::Kind;
use translate::manifest::{self, Item};

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
            let listener = TcpListener::bind("127.0.0.1:0")
                .await
                .context("cannot start an echo backend")?;
            let addr = listener.local_addr()?;
            text = text.replace(&format!("${{{name}}}"), &addr.port().to_string());
            running.push((name, addr));
            tokio::spawn(echo(name, listener));
        }
        let (certificate, key) = certificate()?;
        text = text
            .replace("${certificate}", &indented(&certificate))
            .replace("${key}", &indented(&key));
        let plan = proxy::Plan {
            settings: serve.proxy.translation(true),
            publish_service: None,
            lameduck: Duration::ZERO,
            started: Box::new(move |addresses| print!("{}", welcome(addresses, admin, &running))),
        };
        proxy::run(&serve.proxy, plan, |context| async move {
            let objects: Vec<_> = manifest::parse(&text)
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

/// Answers every request with the name of the backend and what it was asked.
async fn echo(name: &'static str, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
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
        tokio::spawn(
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)),
        );
    }
}

fn welcome(
    addresses: &[(ListenerId, SocketAddr)],
    admin: SocketAddr,
    backends: &[(&str, SocketAddr)],
) -> String {
    let port = |id: &str| {
        addresses
            .iter()
            .find(|(listener, _)| &*listener.0 == id)
            .map_or(0, |(_, addr)| addr.port())
    };
    let (http, https) = (port("http"), port("https"));
    let mut out = String::from("\nTidegate demo. Running now:\n\n");
    for (id, addr) in addresses {
        out.push_str(&format!("  {:<10} {addr}\n", id.0));
    }
    out.push_str(&format!("  {:<10} {admin}\n", "admin"));
    for (name, addr) in backends {
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
         Without name resolution for *.localhost: curl -H 'Host: shop.localhost' http://127.0.0.1:{http}/\n\n\
         Access log lines follow. Ctrl-C drains and stops.\n\n"
    ));
    out
}
