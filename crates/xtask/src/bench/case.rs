//! The cases that compare proxies: what is asked of them, in which unit it is told, and the bar it is held to.

use super::Bench;
use super::load::{self, H2load, Load, Wrk};
use super::peer::{Origin, Peer, Setup};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Case {
    /// 64 connections, 10 hosts
    C64,
    /// 1,000 connections, 10 hosts
    C1000,
    /// 64 connections, 10,000 hosts
    Hosts10000,
    /// 64 connections, each with one request
    Close,
    /// 64 connections over TLS
    Tls,
    /// HTTP/2 over TLS: 16 connections with 16 streams each
    Http2,
    /// Full TLS handshakes with an ECDSA P-256 certificate
    Handshake,
    /// 64 connections, bodies of 64 KiB
    Body64k,
    /// 16 connections, bodies of 1 MiB
    Body1m,
    /// Memory of 10,000 connections at rest
    Idle,
}

/// Connections of [`Case::Idle`].
const IDLE: usize = 10_000;

/// What Tidegate is held to in one case: a ratio to another proxy, or a figure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bar {
    /// Compared to the same rounds of this one; else to nothing.
    pub(super) peer: Option<Peer>,
    pub(super) most: f64,
    /// Whether it must be less, and equal is not enough.
    pub(super) strictly: bool,
}

impl Bar {
    const fn times(most: f64, peer: Peer) -> Self {
        Self {
            peer: Some(peer),
            most,
            strictly: false,
        }
    }
}

impl Case {
    pub(super) const ALL: [Case; 10] = [
        Case::C64,
        Case::C1000,
        Case::Hosts10000,
        Case::Close,
        Case::Tls,
        Case::Http2,
        Case::Handshake,
        Case::Body64k,
        Case::Body1m,
        Case::Idle,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Case::C64 => "64 connections",
            Case::C1000 => "1,000 connections",
            Case::Hosts10000 => "64 connections, 10,000 hosts",
            Case::Close => "connection per request",
            Case::Tls => "64 connections, TLS",
            Case::Http2 => "HTTP/2 over TLS, 16 x 16 streams",
            Case::Handshake => "full ECDSA handshake",
            Case::Body64k => "bodies of 64 KiB",
            Case::Body1m => "bodies of 1 MiB",
            Case::Idle => "10,000 idle connections",
        }
    }

    pub(super) fn unit(self) -> &'static str {
        match self {
            Case::Handshake => "us/handshake",
            Case::Body64k | Case::Body1m => "s/GiB",
            Case::Idle => "KiB/connection",
            _ => "us/request",
        }
    }

    /// The bars, if there are any.
    pub(super) fn bars(self) -> &'static [Bar] {
        match self {
            Case::C64 => const { &[Bar::times(1.05, Peer::Nginx)] },
            Case::C1000 => const { &[Bar::times(0.95, Peer::Nginx)] },
            Case::Tls => const { &[Bar::times(0.9, Peer::Nginx)] },
            Case::Http2 => {
                const {
                    &[
                        Bar::times(1.05, Peer::Nginx),
                        Bar {
                            peer: Some(Peer::Envoy),
                            most: 0.5,
                            strictly: true,
                        },
                    ]
                }
            }
            Case::Handshake => const { &[Bar::times(0.6, Peer::Nginx)] },
            Case::Body64k | Case::Body1m => const { &[Bar::times(0.75, Peer::Nginx)] },
            Case::Idle => {
                const {
                    &[Bar {
                        peer: None,
                        most: 6.0,
                        strictly: false,
                    }]
                }
            }
            Case::Hosts10000 | Case::Close => &[],
        }
    }

    /// Whether this proxy takes part. What a log costs shows at small requests, and nowhere else.
    pub(super) fn has(self, peer: Peer) -> bool {
        peer != Peer::NginxLog || matches!(self, Case::C64 | Case::C1000)
    }

    pub(super) fn setup(self) -> Setup {
        Setup {
            hosts: if self == Case::Hosts10000 { 10_000 } else { 10 },
            tls: matches!(self, Case::Tls | Case::Http2 | Case::Handshake),
            ..Setup::default()
        }
    }

    fn body(self) -> u32 {
        match self {
            Case::Body64k => 64 << 10,
            Case::Body1m => 1 << 20,
            _ => 128,
        }
    }

    /// The generator; none for [`Case::Idle`].
    pub(super) fn load(self) -> Option<Load> {
        let wrk = Wrk::keep_alive(64);
        Some(match self {
            Case::C64 | Case::Body64k => Load::Wrk(wrk),
            Case::C1000 => Load::Wrk(Wrk::keep_alive(1000)),
            Case::Hosts10000 => Load::Wrk(Wrk {
                hosts: 10_000,
                ..wrk
            }),
            Case::Close => Load::Wrk(Wrk { close: true, ..wrk }),
            Case::Tls => Load::Wrk(Wrk { tls: true, ..wrk }),
            Case::Http2 => Load::H2load(H2load {
                connections: 16,
                streams: 16,
                http1: false,
                tls: true,
            }),
            Case::Handshake => Load::Handshakes,
            Case::Body1m => Load::Wrk(Wrk::keep_alive(16)),
            Case::Idle => return None,
        })
    }

    /// The figure of one proxy, in [`unit`](Self::unit).
    pub(super) fn measure(self, bench: &Bench, peer: Peer, seconds: u32) -> anyhow::Result<f64> {
        let mut origin = Origin::Plain(self.body()).start(bench)?;
        let mut proxy = peer.start(bench, &self.setup())?;
        let figure = match self.load() {
            None => load::idle(&proxy, IDLE)?,
            Some(load) => {
                let each = cpu(bench, &proxy, load, seconds)?;
                match self {
                    Case::Body64k | Case::Body1m => {
                        each * f64::from(1 << 30) / f64::from(self.body())
                    }
                    _ => each * 1e6,
                }
            }
        };
        proxy.stop();
        origin.stop();
        Ok(figure)
    }
}

/// CPU seconds of the proxy for each request.
pub(super) fn cpu(
    bench: &Bench,
    proxy: &super::running::Running,
    load: Load,
    seconds: u32,
) -> anyhow::Result<f64> {
    // Warm-up: connections to the origin, caches, branch predictors.
    load.run(bench, 1)?;
    let before = proxy.cpu_seconds()?;
    let requests = load.run(bench, seconds)?;
    Ok((proxy.cpu_seconds()? - before) / requests as f64)
}
