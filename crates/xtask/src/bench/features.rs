//! `--features`: what each feature on the request path costs Tidegate, as pairs without and with it in interleaved rounds.

use super::Bench;
use super::case::cpu;
use super::config::{ORIGIN_H2C_PORT, ORIGIN_TLS_PORT};
use super::instructions;
use super::load::{H2load, Load, Wrk};
use super::peer::{Origin, Peer, Setup};
use super::report::summary;
use anyhow::Context;

/// One feature: Tidegate without it and with it.
struct Pair {
    name: &'static str,
    /// The load, where it is of interest.
    under: &'static str,
    origin: Origin,
    without: (Setup, Load),
    with: (Setup, Load),
}

/// In instructions instead of time: outside the kernel only, and the same however busy the machine is.
pub(super) fn count(bench: &Bench) -> anyhow::Result<()> {
    println!("Tidegate, instructions a request in user space:\n");
    println!("| feature | load | without | with | difference |\n|---|---|---|---|---|");
    for pair in pairs() {
        let count = |(setup, load): &(Setup, Load)| {
            let mut origin = pair.origin.start(bench)?;
            let load = |seconds| load.run(bench, seconds);
            // In seconds; 64 handshakes take one. Under callgrind some thousand requests are made in each.
            let count = instructions::count(bench, setup, load, [3, 3, 9])?;
            origin.stop();
            anyhow::Ok(count.each)
        };
        let without = count(&pair.without).with_context(|| pair.name)?;
        let with = count(&pair.with).with_context(|| pair.name)?;
        println!(
            "| {} | {} | {without:.0} | {with:.0} | {:+.0} |",
            pair.name,
            pair.under,
            with - without
        );
    }
    Ok(())
}

pub(super) fn run(bench: &Bench, rounds: u32, seconds: u32) -> anyhow::Result<()> {
    let pairs = pairs();
    let mut figures = vec![(Vec::new(), Vec::new()); pairs.len()];
    for round in 1..=rounds {
        for (pair, (without, with)) in pairs.iter().zip(&mut figures) {
            let measure = |side: &(Setup, Load)| {
                measure(bench, pair.origin, side, seconds).with_context(|| pair.name)
            };
            let (a, b) = (measure(&pair.without)?, measure(&pair.with)?);
            println!(
                "round {round}  {:<36} without {a:7.2}  with {b:7.2} us/request",
                pair.name
            );
            without.push(a);
            with.push(b);
        }
    }
    println!("\nTidegate, CPU microseconds a request, median (least..most):\n");
    println!("| feature | load | without | with | difference |\n|---|---|---|---|---|");
    for (pair, (without, with)) in pairs.iter().zip(&figures) {
        let differences: Vec<f64> = with.iter().zip(without).map(|(b, a)| b - a).collect();
        println!(
            "| {} | {} | {} | {} | {} |",
            pair.name,
            pair.under,
            summary(without),
            summary(with),
            summary(&differences)
        );
    }
    Ok(())
}

/// CPU microseconds a request.
fn measure(
    bench: &Bench,
    origin: Origin,
    (setup, load): &(Setup, Load),
    seconds: u32,
) -> anyhow::Result<f64> {
    let mut origin = origin.start(bench)?;
    let mut proxy = Peer::Tidegate.start(bench, setup)?;
    let micros = cpu(bench, &proxy, *load, seconds)? * 1e6;
    proxy.stop();
    origin.stop();
    Ok(micros)
}

fn pairs() -> Vec<Pair> {
    let plain = Setup::default;
    let tls = || Setup {
        tls: true,
        ..plain()
    };
    let annotated = |annotations: &[(&'static str, &'static str)]| Setup {
        annotations: annotations.to_vec(),
        ..plain()
    };
    let flagged = |flags: &[&'static str]| Setup {
        flags: flags.to_vec(),
        ..plain()
    };
    let c64 = Wrk::keep_alive(64);
    let forwarded = Load::Wrk(Wrk {
        field: ", ['X-Forwarded-For'] = '192.0.2.1', ['X-Forwarded-Proto'] = 'https'",
        ..c64
    });
    let http1 = |tls| {
        Load::H2load(H2load {
            connections: 64,
            streams: 1,
            http1: true,
            tls,
        })
    };
    // As many requests in flight as HTTP/1.1 has them.
    let http2 = Load::H2load(H2load {
        connections: 16,
        streams: 4,
        http1: false,
        tls: true,
    });
    let on = Origin::Plain(128);
    let pair = |name, under, origin, without, with| Pair {
        name,
        under,
        origin,
        without,
        with,
    };
    let c64 = Load::Wrk(c64);
    vec![
        pair(
            "access log",
            "64 connections",
            on,
            (
                Setup {
                    access_log: false,
                    ..plain()
                },
                c64,
            ),
            (plain(), c64),
        ),
        pair(
            "a second and third attempt (`attempts`)",
            "64 connections",
            on,
            (annotated(&[("attempts", "1")]), c64),
            (annotated(&[("attempts", "3")]), c64),
        ),
        pair(
            "limit of the request body",
            "64 connections",
            on,
            (annotated(&[("max-request-body", "0")]), c64),
            (annotated(&[("max-request-body", "1m")]), c64),
        ),
        pair(
            "`X-Forwarded-*` of a client believed",
            "64 connections that send it",
            on,
            (plain(), forwarded),
            (flagged(&["--trusted-proxy=127.0.0.0/8"]), forwarded),
        ),
        pair(
            "TLS",
            "64 connections, h2load",
            on,
            (plain(), http1(false)),
            (tls(), http1(true)),
        ),
        pair(
            "HTTP/2 instead of HTTP/1.1",
            "TLS, 64 requests in flight, h2load",
            on,
            (tls(), http1(true)),
            (tls(), http2),
        ),
        pair(
            "client certificates, optional, none shown",
            "TLS, 64 connections, h2load",
            on,
            (tls(), http1(true)),
            (
                Setup {
                    annotations: vec![
                        ("client-ca-secret", "default/clients"),
                        ("client-certificate", "optional"),
                    ],
                    ..tls()
                },
                http1(true),
            ),
        ),
        pair(
            "PROXY header of clients",
            "connection per request",
            on,
            (plain(), Load::Connections("")),
            (
                flagged(&["--proxy-protocol", "--proxy-protocol-from=127.0.0.0/8"]),
                Load::Connections("PROXY TCP4 192.0.2.1 127.0.0.1 40000 18080\r\n"),
            ),
        ),
        pair(
            "PROXY header to endpoints, a connection per request",
            "64 connections",
            on,
            (plain(), c64),
            (annotated(&[("upstream-proxy-protocol", "v1")]), c64),
        ),
        pair(
            "TLS to endpoints",
            "64 connections, nginx behind",
            Origin::Nginx,
            (plain(), c64),
            (
                Setup {
                    origin: ORIGIN_TLS_PORT,
                    ..annotated(&[("backend-protocol", "HTTPS")])
                },
                c64,
            ),
        ),
        pair(
            "HTTP/2 to endpoints",
            "64 connections, nginx behind",
            Origin::Nginx,
            (plain(), c64),
            (
                Setup {
                    origin: ORIGIN_H2C_PORT,
                    app_protocol: Some("kubernetes.io/h2c"),
                    ..plain()
                },
                c64,
            ),
        ),
    ]
}
