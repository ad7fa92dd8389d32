//! The proxies that are measured: their configuration, and their processes.

use super::Bench;
use anyhow::{Context, bail};
use std::fmt::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Peer {
    /// Ours: routing, forwarded headers, metrics, JSON access log to a file
    Tidegate,
    /// nginx with forwarded headers, no access log
    Nginx,
    /// nginx with forwarded headers and a JSON access log, buffered, to a file
    NginxLog,
    /// HAProxy with forwarded headers, no log
    Haproxy,
}

impl Peer {
    pub(crate) const ALL: [Peer; 4] = [Peer::Tidegate, Peer::Nginx, Peer::NginxLog, Peer::Haproxy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Tidegate => "tidegate",
            Peer::Nginx => "nginx",
            Peer::NginxLog => "nginx with access log",
            Peer::Haproxy => "haproxy",
        }
    }

    /// Starts it on core 0 with one worker, this many hosts, and every feature of the comparison.
    pub(crate) fn start(
        self,
        bench: &Bench,
        hosts: u32,
        port: u16,
        origin: u16,
    ) -> anyhow::Result<Running> {
        let directory = bench.directory.as_path();
        let configuration = directory.join("manifests");
        std::fs::create_dir_all(&configuration)?;
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).env(
            "PATH",
            format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()),
        );
        match self {
            Peer::Tidegate => {
                let manifests = configuration.join(format!("{hosts}.yaml"));
                std::fs::write(&manifests, tidegate_manifests(hosts, origin))?;
                command.arg(&bench.tidegate).args([
                    "serve",
                    "--workers=1",
                    "--https-addr=off",
                    "--log=warn",
                ]);
                command
                    .arg(format!("--manifests={}", manifests.display()))
                    .arg(format!("--http-addr=127.0.0.1:{port}"));
                command.arg("--admin-addr=127.0.0.1:0").arg(format!(
                    "--access-log={}",
                    scratch(directory, "tidegate.access")?
                ));
            }
            Peer::Nginx | Peer::NginxLog => {
                let config = directory.join("nginx.conf");
                std::fs::write(
                    &config,
                    nginx_config(directory, hosts, port, origin, self == Peer::NginxLog)?,
                )?;
                command
                    .args(["nginx", "-p"])
                    .arg(directory)
                    .arg("-c")
                    .arg(&config)
                    .args(["-e", "stderr"]);
            }
            Peer::Haproxy => {
                let config = directory.join("haproxy.cfg");
                std::fs::write(&config, haproxy_config(directory, hosts, port, origin)?)?;
                command.args(["haproxy", "-db", "-f"]).arg(&config);
            }
        }
        let mut running = Running::start(&mut command)?;
        running.wait_for(port)?;
        Ok(running)
    }
}

/// An empty file for a log, apart from the configuration: Tidegate watches the folder its manifests are in.
fn scratch(directory: &Path, name: &str) -> anyhow::Result<String> {
    let logs = directory.join("logs");
    std::fs::create_dir_all(&logs)?;
    let path = logs.join(name);
    std::fs::write(&path, "")?;
    Ok(path.display().to_string())
}

fn tidegate_manifests(hosts: u32, origin: u16) -> String {
    let mut out = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: origin}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: origin, labels: {{kubernetes.io/service-name: origin}}}}\n\
         addressType: IPv4\nports: [{{port: {origin}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
    );
    for host in 0..hosts {
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: h{host}}}\nspec:\n  rules:\n  - host: h{host}.bench.test\n    \
             http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: origin, port: {{number: 80}}}}}}}}]}}\n"
        );
    }
    out
}

fn nginx_config(
    directory: &Path,
    hosts: u32,
    port: u16,
    origin: u16,
    log: bool,
) -> anyhow::Result<String> {
    let access = if log {
        format!(
            "access_log {} json buffer=16k flush=1s",
            scratch(directory, "nginx.access")?
        )
    } else {
        "access_log off".into()
    };
    let mut names = String::new();
    for host in 0..hosts {
        let _ = write!(names, " h{host}.bench.test");
    }
    Ok(format!(
        "daemon off;\nworker_processes 1;\npid nginx.pid;\nerror_log stderr error;\nworker_rlimit_nofile 19000;\nevents {{ worker_connections 9000; }}\n\
         http {{\n  server_names_hash_max_size 131072;\n  server_names_hash_bucket_size 128;\n  keepalive_requests 100000000;\n  keepalive_timeout 75s;\n  \
         log_format json escape=json '{{\"time\":\"$time_iso8601\",\"client\":\"$remote_addr\",\"request_id\":\"$request_id\",\"method\":\"$request_method\",\
         \"scheme\":\"$scheme\",\"host\":\"$http_host\",\"path\":\"$request_uri\",\"protocol\":\"$server_protocol\",\"status\":$status,\
         \"request_bytes\":$request_length,\"response_bytes\":$body_bytes_sent,\"duration\":$request_time,\"user_agent\":\"$http_user_agent\",\
         \"upstream\":\"$upstream_addr\",\"upstream_duration\":\"$upstream_response_time\"}}';\n  {access};\n  \
         upstream origin {{ server 127.0.0.1:{origin}; keepalive 2048; keepalive_requests 100000000; }}\n  server {{\n    listen 127.0.0.1:{port} backlog=4096;\n    \
         server_name{names};\n    location / {{\n      proxy_pass http://origin;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      \
         proxy_set_header Host $http_host;\n      proxy_set_header X-Forwarded-For $remote_addr;\n      proxy_set_header X-Real-IP $remote_addr;\n      \
         proxy_set_header X-Forwarded-Proto $scheme;\n      proxy_set_header X-Forwarded-Host $http_host;\n      proxy_set_header X-Forwarded-Port $server_port;\n      \
         proxy_set_header X-Request-ID $request_id;\n    }}\n  }}\n}}\n"
    ))
}

fn haproxy_config(directory: &Path, hosts: u32, port: u16, origin: u16) -> anyhow::Result<String> {
    let map = directory.join("hosts.map");
    let mut lines = String::new();
    for host in 0..hosts {
        let _ = writeln!(lines, "h{host}.bench.test origin");
    }
    std::fs::write(&map, lines)?;
    Ok(format!(
        "global\n  nbthread 1\n  maxconn 9000\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 75s\n  timeout server 60s\n  http-reuse always\n\
         frontend front\n  bind 127.0.0.1:{port} backlog 4096\n  http-request set-header X-Forwarded-For %[src]\n  http-request set-header X-Real-IP %[src]\n  \
         http-request set-header X-Forwarded-Proto http\n  http-request set-header X-Forwarded-Host %[req.hdr(host)]\n  \
         http-request set-header X-Forwarded-Port %[dst_port]\n  http-request set-header X-Request-ID %[uuid()]\n  \
         use_backend %[req.hdr(host),lower,map_str({},none)]\nbackend origin\n  server o 127.0.0.1:{origin} pool-max-conn 2048\nbackend none\n  http-request deny deny_status 404\n",
        map.display()
    ))
}

/// A process of ours, ended when dropped.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Ok(Self {
            child: child.with_context(|| format!("cannot start {command:?}"))?,
        })
    }

    fn wait_for(&mut self, port: u16) -> anyhow::Result<()> {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status} before it listened");
            }
            if start.elapsed() > Duration::from_secs(60) {
                bail!("it does not listen on port {port}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// User and system time of the process and its children, in seconds.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let mut ticks = 0;
        let mut left = vec![self.child.id()];
        while let Some(pid) = left.pop() {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .with_context(|| format!("process {pid} is gone"))?;
            // The name may hold spaces; what follows its closing parenthesis does not.
            let fields: Vec<&str> = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            let number = |at: usize| {
                fields
                    .get(at)
                    .and_then(|field| field.parse::<u64>().ok())
                    .unwrap_or(0)
            };
            ticks += number(11) + number(12);
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
                .unwrap_or_default();
            left.extend(
                children
                    .split_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            );
        }
        // USER_HZ is 100 on every Linux this runs on.
        Ok(ticks as f64 / 100.0)
    }

    /// Asks it to end, by its process id, and waits.
    pub(crate) fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(5) {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
