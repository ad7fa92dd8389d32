//! The proxies that are measured, and how each is started.

use super::Bench;
use super::config::{self, ORIGIN_PORT};
use super::running::Running;
use crate::tools::bench::{HAPROXY, NGINX};
use anyhow::Context;
use std::path::Path;
use std::process::Command;

/// Where the proxies listen.
pub(super) const HTTP_PORT: u16 = 18080;
pub(super) const HTTPS_PORT: u16 = 18443;

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Peer {
    /// Ours: routing, forwarded headers, metrics, JSON access log to a file
    Tidegate,
    /// nginx with forwarded headers, no access log
    Nginx,
    /// nginx with forwarded headers and a JSON access log, buffered, to a file
    NginxLog,
    /// HAProxy with forwarded headers, no log
    Haproxy,
    /// Envoy with forwarded headers, no log
    Envoy,
}

impl Peer {
    pub(super) const ALL: [Peer; 5] = [
        Peer::Tidegate,
        Peer::Nginx,
        Peer::NginxLog,
        Peer::Haproxy,
        Peer::Envoy,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Peer::Tidegate => "tidegate",
            Peer::Nginx => "nginx",
            Peer::NginxLog => "nginx with access log",
            Peer::Haproxy => "haproxy",
            Peer::Envoy => "envoy",
        }
    }

    /// Starts it on core 0 with one worker, and every feature of the comparison.
    pub(super) fn start(self, bench: &Bench, setup: &Setup) -> anyhow::Result<Running> {
        let directory = bench.directory.as_path();
        let certificates = directory.join("certificates");
        let mut command = bench.pinned("0");
        match self {
            Peer::Tidegate => tidegate(&mut command, bench, setup)?,
            Peer::Nginx | Peer::NginxLog => {
                let log = (self == Peer::NginxLog)
                    .then(|| scratch(directory, "nginx.access"))
                    .transpose()?;
                let config = directory.join("nginx.conf");
                std::fs::write(&config, config::nginx(setup, &certificates, log.as_deref()))?;
                nginx(&mut command, directory, &config)?;
            }
            Peer::Haproxy => {
                let config = directory.join("haproxy.cfg");
                let text = config::haproxy(setup, &certificates, &directory.join("hosts.map"))?;
                std::fs::write(&config, text)?;
                command
                    .arg(HAPROXY.find()?)
                    .args(["-q", "-db", "-f"])
                    .arg(&config);
            }
            Peer::Envoy => {
                let config = directory.join("envoy.yaml");
                std::fs::write(&config, config::envoy(setup, &certificates))?;
                let envoy = bench.envoy.as_ref().context("there is no Envoy")?;
                command
                    .arg(envoy)
                    .args(["--concurrency", "1", "--disable-hot-restart", "-l", "error"])
                    .arg("-c")
                    .arg(&config);
            }
        }
        let mut running = Running::start(&mut command)?;
        running.wait_for(if setup.tls { HTTPS_PORT } else { HTTP_PORT })?;
        Ok(running)
    }
}

/// What a proxy is to serve; the last fields are for Tidegate alone.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) hosts: u32,
    pub(super) tls: bool,
    /// The port of the origin.
    pub(super) origin: u16,
    /// What the Service says its endpoints speak.
    pub(super) app_protocol: Option<&'static str>,
    pub(super) access_log: bool,
    /// Without their prefix.
    pub(super) annotations: Vec<(&'static str, &'static str)>,
    pub(super) flags: Vec<&'static str>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            hosts: 10,
            tls: false,
            origin: ORIGIN_PORT,
            app_protocol: None,
            access_log: true,
            annotations: Vec::new(),
            flags: Vec::new(),
        }
    }
}

/// Adds Tidegate and its arguments to a command.
pub(super) fn tidegate(command: &mut Command, bench: &Bench, setup: &Setup) -> anyhow::Result<()> {
    let directory = bench.directory.as_path();
    // A folder without anything else that changes: Tidegate watches it.
    let folder = directory.join("manifests");
    std::fs::create_dir_all(&folder)?;
    let manifests = folder.join("bench.yaml");
    std::fs::write(
        &manifests,
        config::tidegate(setup, &directory.join("certificates"))?,
    )?;
    let access_log = if setup.access_log {
        scratch(directory, "tidegate.access")?
    } else {
        "off".into()
    };
    command
        .arg(&bench.tidegate)
        .args([
            "serve",
            "--workers=1",
            "--log=warn",
            "--max-connections=12000",
        ])
        .arg(format!("--manifests={}", manifests.display()))
        .arg(format!("--http-addr=127.0.0.1:{HTTP_PORT}"))
        .arg("--admin-addr=127.0.0.1:0")
        .arg(format!("--access-log={access_log}"))
        .args(&setup.flags);
    if setup.tls {
        command
            .arg(format!("--https-addr=127.0.0.1:{HTTPS_PORT}"))
            .arg("--default-certificate=default/bench");
    } else {
        command.arg("--https-addr=off");
    }
    Ok(())
}

/// Adds nginx and its arguments to a command.
fn nginx(command: &mut Command, directory: &Path, config: &Path) -> anyhow::Result<()> {
    command
        .arg(NGINX.find()?)
        .arg("-p")
        .arg(directory)
        .arg("-c")
        .arg(config)
        .args(["-e", "stderr"]);
    Ok(())
}

/// An empty file for a log.
fn scratch(directory: &Path, name: &str) -> anyhow::Result<String> {
    let logs = directory.join("logs");
    std::fs::create_dir_all(&logs)?;
    let path = logs.join(name);
    std::fs::write(&path, "")?;
    Ok(path.display().to_string())
}

/// What answers behind the proxy, on core 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// `tests/bench/origin.c` with a body of so many bytes.
    Plain(u32),
    /// nginx, which speaks TLS and HTTP/2 too.
    Nginx,
}

impl Origin {
    pub(super) fn start(self, bench: &Bench) -> anyhow::Result<Running> {
        let mut command = bench.pinned("1");
        match self {
            Origin::Plain(bytes) => {
                command
                    .arg(&bench.origin)
                    .args([ORIGIN_PORT.to_string(), bytes.to_string()]);
            }
            Origin::Nginx => {
                let config = bench.directory.join("origin.conf");
                std::fs::write(
                    &config,
                    config::nginx_origin(&bench.directory.join("certificates")),
                )?;
                nginx(&mut command, &bench.directory, &config)?;
            }
        }
        let mut running = Running::start(&mut command)?;
        running.wait_for(ORIGIN_PORT)?;
        Ok(running)
    }
}
