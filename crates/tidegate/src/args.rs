//! Flags. Every flag is checked here, so that a mistake is one clear line at start and not a surprise later.

mod admin;
mod modes;

pub(crate) use admin::{ADMIN_ADDR, AdminArgs};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use data_plane::{CipherSuites, MinTlsVersion, TicketKeys};
use ipnet::IpNet;
use routing_table::filter::network;
use routing_table::{RelayLimits, overlap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use translate::{HostOwnership, ObjectKey};

/// Kubernetes ingress controller and sidecar load balancer.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads what was written on the command line; mistakes end the process with exit status 2.
    pub(crate) fn read() -> Self {
        let matches = Self::command().get_matches();
        let read = modes::check(&matches).and_then(|()| Self::from_arg_matches(&matches));
        read.unwrap_or_else(|error| error.exit())
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the Ingresses of a cluster: in a pod, or by kubeconfig from anywhere
    Controller(Box<ControllerArgs>),
    /// Serve manifests or a configuration from files, without a cluster; changes are picked up
    Serve(Box<ServeArgs>),
    /// Say what is wrong with manifests or a configuration; exit status 1 if there is an error
    Check(PathArgs),
    /// Print the routing table that manifests or a configuration come to
    Translate(PathArgs),
    /// Try the rules of a configuration: requests, and what should become of them; exit status 1 if a case fails
    Test(TestArgs),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Start three echo backends and an Ingress over them, show what they do, and stay, to try things out
    Demo(DemoArgs),
    /// Print the annotation reference
    #[command(hide = true)]
    Annotations,
}

#[derive(Debug, Args)]
pub(crate) struct PathArgs {
    /// A manifest, a directory of them, or a configuration
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) routing: RoutingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// A file of cases
    pub(crate) cases: PathBuf,
    /// The configuration they are tried on
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// One of the first three must be given, or BACKEND_1, BACKEND_2 and so on in the environment.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// A directory of manifests (YAML or JSON), or one file
    #[arg(long, value_name = "PATH")]
    pub(crate) manifests: Option<PathBuf>,
    /// A configuration: listeners, routes and backends in YAML, JSON or TOML, by the ending of its name; - is YAML from
    /// standard input. Read again when it changes, and upon SIGHUP
    #[arg(long, value_name = "FILE", conflicts_with = "manifests")]
    pub(crate) config: Option<PathBuf>,
    /// Send everything that comes to --http-addr to this http:// or https:// URL; may be repeated; port 80 or 443 where none is
    /// given. Default: the variables BACKEND_1, BACKEND_2 and so on
    #[arg(long = "backend", value_name = "URL", conflicts_with_all = ["manifests", "config"])]
    pub(crate) backends: Vec<String>,
    /// PEM file of the authorities that https:// URLs must have their certificates from; default: those of the system
    #[arg(long, value_name = "FILE", conflicts_with_all = ["manifests", "config"])]
    pub(crate) backend_ca: Option<String>,
    #[command(flatten)]
    pub(crate) proxy: ProxyArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where plain HTTP is served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) http_addr: SocketAddr,
    /// Where HTTPS is served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    pub(crate) https_addr: SocketAddr,
    /// Where /healthz, /readyz, /metrics and /backends are served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10254")]
    pub(crate) admin_addr: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct ControllerArgs {
    /// Kubeconfig file; default: KUBECONFIG, ~/.kube/config, or the pod's service account
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long)]
    pub(crate) context: Option<String>,
    /// Serve only this namespace; default: all
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) watch_namespace: Option<String>,
    /// Read Secrets only in these namespaces; may be repeated; default: wherever Ingresses are served
    #[arg(long = "secret-namespace", value_name = "NAMESPACE")]
    pub(crate) secret_namespaces: Vec<String>,
    /// Service whose address is written into Ingress status
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object_key, conflicts_with = "publish_addresses")]
    pub(crate) publish_service: Option<ObjectKey>,
    /// Address or host name written into Ingress status; may be repeated
    #[arg(long = "publish-address", value_name = "ADDR")]
    pub(crate) publish_addresses: Vec<String>,
    /// Node whose address is written into Ingress status when neither of the above is given
    #[arg(long, env = "NODE_NAME", value_name = "NODE")]
    pub(crate) node_name: Option<String>,
    /// Do not write Ingress status
    #[arg(long)]
    pub(crate) no_update_status: bool,
    /// Take our addresses out of Ingress status when the leader stops
    #[arg(long)]
    pub(crate) clear_status_on_shutdown: bool,
    /// Namespace of the Lease by which replicas choose who writes status and Events
    #[arg(
        long,
        env = "POD_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "default"
    )]
    pub(crate) lease_namespace: String,
    /// Name of that Lease
    #[arg(long, value_name = "NAME", default_value = "tidegate-leader")]
    pub(crate) lease_name: String,
    /// Name of this replica; default: the host name and process id
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub(crate) identity: Option<String>,
    #[command(flatten)]
    pub(crate) proxy: ProxyArgs,
}

/// How objects are read.
#[derive(Debug, Args, Clone)]
pub(crate) struct RoutingArgs {
    /// Class of the Ingresses to serve, for the deprecated annotation and for manifests without an IngressClass
    #[arg(long, value_name = "NAME", default_value = "tidegate", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) ingress_class: String,
    /// spec.controller of the IngressClasses to serve
    #[arg(
        long,
        value_name = "NAME",
        default_value = "tidegate.dev/ingress-controller",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub(crate) controller_name: String,
    /// Who may use a host name that an older Ingress of another namespace uses
    #[arg(long, value_enum, default_value_t = Ownership::Namespace)]
    pub(crate) host_ownership: Ownership,
    /// Accept Services of type ExternalName: their names are looked up in the DNS
    #[arg(long)]
    pub(crate) allow_external_name: bool,
    /// The DNS domain of the cluster, for headless Services that are looked up there
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Name server to ask for endpoints that are in the DNS; may be given several times. Default: those of the system
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) dns_resolver: Vec<SocketAddr>,
    /// How long endpoints from the DNS stay in use while it does not answer; default: for ever
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) dns_keep: Option<Duration>,
    /// Secret with the certificate for clients that no other certificate fits; default: a generated one
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object_key)]
    pub(crate) default_certificate: Option<ObjectKey>,
    /// Largest request body in bytes where an Ingress says nothing; 0 for no limit
    #[arg(long, value_name = "BYTES", default_value_t = 1024 * 1024)]
    pub(crate) max_request_body: u64,
    /// ConfigMap of TCP ports to relay, as "9000": "namespace/service:port"; with :PROXY after it connections begin with a
    /// PROXY header, with a second :PROXY those to endpoints do
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object_key)]
    pub(crate) tcp_services_configmap: Option<ObjectKey>,
    /// ConfigMap of UDP ports to relay, as "53": "namespace/service:port"
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object_key)]
    pub(crate) udp_services_configmap: Option<ObjectKey>,
    /// Let Ingresses with the annotation ssl-passthrough have their TLS passed on
    #[arg(long)]
    pub(crate) enable_ssl_passthrough: bool,
    /// Send plain requests for hosts with TLS to https where an Ingress says nothing
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) ssl_redirect: bool,
    /// Close a relayed TCP connection after this long without a byte
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub(crate) tcp_idle_timeout: Duration,
    /// Forget a UDP client after this long without a datagram
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) udp_idle_timeout: Duration,
    /// Forget a UDP client as soon as so many answers have come for each of its datagrams; default: after --udp-idle-timeout
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) udp_responses: Option<u32>,
    /// Most relayed connections or UDP clients of one port
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) max_relays_per_port: u64,
    /// Close relayed TCP connections when their endpoint is taken out of its Service; default: they end by themselves
    #[arg(long)]
    pub(crate) close_relays_with_endpoint: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Ownership {
    /// Nobody: the oldest Ingress's namespace owns the name
    Namespace,
    /// Everybody, as in ingress-nginx: only an equal path is a conflict
    Shared,
}

/// How it is served.
#[derive(Debug, Args, Clone)]
pub(crate) struct ProxyArgs {
    #[command(flatten)]
    pub(crate) routing: RoutingArgs,
    /// Where plain HTTP is served, or "off"
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080", value_parser = addr_or_off)]
    pub(crate) http_addr: Listen,
    /// Where HTTPS is served, or "off"
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443", value_parser = addr_or_off)]
    pub(crate) https_addr: Listen,
    /// Worker threads; default: one for each processor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
    /// Most client connections
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) max_connections: u64,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Oldest version of TLS that clients may use
    #[arg(long, value_enum, default_value_t = MinTls::V12)]
    pub(crate) tls_min_version: MinTls,
    /// Cipher suites that clients may use, the best first, by the names of OpenSSL or IANA with ":" or "," between them; of a
    /// version of TLS of which none is named all may be used. Default: all, which are ECDHE with AES-256-GCM, AES-128-GCM or
    /// ChaCha20, in this order
    #[arg(long, value_name = "NAMES")]
    pub(crate) tls_ciphers: Option<CipherSuites>,
    /// Keys of TLS session tickets, for replicas to share: a file of lines from "openssl rand -hex 32"; the first makes
    /// tickets, all read them; changes are picked up. Default: generated keys of our own
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ticket_keys: Option<PathBuf>,
    /// Network of proxies whose X-Forwarded-* fields are believed; may be repeated
    #[arg(long = "trusted-proxy", value_name = "CIDR", value_parser = network)]
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Every connection to --http-addr and --https-addr begins with a header of the PROXY protocol, version 1 or 2
    #[arg(long)]
    pub(crate) proxy_protocol: bool,
    /// Network of proxies whose PROXY header is believed, others are closed; may be repeated; default: those of
    /// --trusted-proxy
    #[arg(long = "proxy-protocol-from", value_name = "CIDR", value_parser = network)]
    pub(crate) proxy_protocol_from: Vec<IpNet>,
    /// The zone we are in, as endpoints name theirs: those that are near are preferred. Default: not known
    #[arg(long, env = "TIDEGATE_ZONE", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) zone: Option<String>,
    /// Where access log lines go: "stdout", "off", or a file to append to
    #[arg(long, value_name = "WHERE", default_value = "stdout")]
    pub(crate) access_log: String,
    /// Format of those lines; text is the combined format of web servers with what a proxy knows besides
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub(crate) access_log_format: LogFormat,
    /// After SIGTERM: how long to go on serving while not ready; default 10s in a cluster, else 0s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) lameduck: Option<Duration>,
    /// After that: how long requests in progress may take
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = duration)]
    pub(crate) drain_timeout: Duration,
    /// Format of log messages
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// What is logged: error, warn, info, debug, or a filter such as "info,data_plane=debug"
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "TIDEGATE_LOG",
        value_parser = crate::log_filter::checked
    )]
    pub(crate) log: String,
}

/// What a client may take and send, and what is kept towards endpoints.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Longest TLS handshake
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) client_handshake_timeout: Duration,
    /// Most TLS handshakes in progress; more wait
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) max_handshakes: usize,
    /// Longest wait for the first byte of a new connection
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub(crate) client_first_byte_timeout: Duration,
    /// Longest wait for the rest of a request head
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) client_head_timeout: Duration,
    /// Longest wait for the next piece of a request body
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) client_body_timeout: Duration,
    /// Bytes a second that a request body must come to on average, after twice the body timeout
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) client_body_min_rate: u64,
    /// Longest wait for a client to take the next piece of an answer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) client_write_timeout: Duration,
    /// How long a client may rest between two requests
    #[arg(long, value_name = "DURATION", default_value = "75s", value_parser = duration)]
    pub(crate) client_idle_timeout: Duration,
    /// Most requests on one HTTP/1.1 connection of a client
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) client_max_requests: u64,
    /// How long a connection to an endpoint may rest
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub(crate) upstream_idle_timeout: Duration,
    /// Most connections at rest, for each endpoint and worker
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) upstream_max_idle: usize,
    /// Most connections to endpoints; default: what --max-connections leaves of the files that may be open
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_endpoint_connections: Option<u64>,
    /// Most requests on one connection to an endpoint
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) upstream_max_requests: u32,
    /// How old a connection to an endpoint may become, or up to a fifth less; requests on it end in peace. Default: as old as it
    /// likes
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) upstream_max_lifetime: Option<Duration>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum MinTls {
    #[value(name = "1.2")]
    V12,
    #[value(name = "1.3")]
    V13,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// An address, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

fn addr_or_off(text: &str) -> Result<Listen, String> {
    if text == "off" {
        return Ok(Listen(None));
    }
    text.parse().map(|addr| Listen(Some(addr))).map_err(|_| {
        "not an address with a port, such as 0.0.0.0:8080 or [::]:8080, nor \"off\"".into()
    })
}

fn object_key(text: &str) -> Result<ObjectKey, String> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok(ObjectKey::new(namespace, name))
        }
        _ => Err("not of the form namespace/name".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits]
        .parse()
        .map_err(|_| "not a duration such as 500ms, 10s or 1m".to_owned())?;
    match &text[digits..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" if number <= 24 * 60 => Ok(Duration::from_secs(number * 60)),
        _ => Err("not a duration such as 500ms, 10s or 1m".into()),
    }
}

impl RoutingArgs {
    /// The ConfigMaps that are read.
    pub(crate) fn config_maps(&self) -> Vec<ObjectKey> {
        let named = [&self.tcp_services_configmap, &self.udp_services_configmap];
        let mut named: Vec<_> = named.into_iter().flatten().cloned().collect();
        named.dedup();
        named
    }

    /// Times of DNS discovery.
    pub(crate) fn dns_timing(&self) -> discovery::Timing {
        discovery::Timing {
            keep: self.dns_keep,
            ..discovery::Timing::default()
        }
    }

    /// What counts where a configuration says nothing.
    pub(crate) fn defaults(&self) -> standalone::Defaults {
        standalone::Defaults {
            resolvers: self.dns_resolver.clone(),
            request_body: Some(self.max_request_body).filter(|bytes| *bytes > 0),
        }
    }

    /// Settings of the translation. `local` is for manifests from files.
    pub(crate) fn settings(
        &self,
        http: Option<SocketAddr>,
        https: Option<SocketAddr>,
        local: bool,
    ) -> translate::Settings {
        translate::Settings {
            http,
            https,
            controller: self.controller_name.clone(),
            class: self.ingress_class.clone(),
            serve_classless: local,
            host_ownership: match self.host_ownership {
                Ownership::Namespace => HostOwnership::Namespace,
                Ownership::Shared => HostOwnership::Shared,
            },
            external_name: self.allow_external_name,
            dns_resolvers: self.dns_resolver.clone(),
            cluster_domain: self.cluster_domain.trim_matches('.').to_owned(),
            local_endpoints: local,
            default_certificate: self.default_certificate.clone(),
            request_body: Some(self.max_request_body).filter(|bytes| *bytes > 0),
            tcp_services: self.tcp_services_configmap.clone(),
            udp_services: self.udp_services_configmap.clone(),
            ssl_passthrough: self.enable_ssl_passthrough,
            ssl_redirect: self.ssl_redirect,
            tcp_limits: RelayLimits {
                idle: self.tcp_idle_timeout,
                most: self.max_relays_per_port,
                close_with_endpoint: self.close_relays_with_endpoint,
                ..RelayLimits::TCP
            },
            udp_limits: RelayLimits {
                idle: self.udp_idle_timeout,
                most: self.max_relays_per_port,
                responses: self.udp_responses,
                ..RelayLimits::UDP
            },
            ..translate::Settings::default()
        }
    }
}

impl ProxyArgs {
    /// Settings of the translation.
    pub(crate) fn translation(&self, local: bool) -> translate::Settings {
        translate::Settings {
            proxy_header: self.proxy_protocol,
            proxy_header_believed: !self.proxy_header_from().is_empty(),
            reserved_ports: vec![self.admin.addr.port()],
            ..self
                .routing
                .settings(self.http_addr.0, self.https_addr.0, local)
        }
    }

    /// Networks whose PROXY header is believed.
    fn proxy_header_from(&self) -> &[IpNet] {
        match self.proxy_protocol_from.as_slice() {
            [] => &self.trusted_proxies,
            named => named,
        }
    }

    /// What the definition of the flags cannot say.
    ///
    /// # Errors
    /// When flags contradict each other.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.proxy_protocol && self.proxy_header_from().is_empty() {
            let message = "--proxy-protocol needs --proxy-protocol-from (or --trusted-proxy): nobody's header would be believed";
            return Err(crate::UsageError(message.to_owned()).into());
        }
        Ok(())
    }

    /// Refuses addresses of which only one could be listened on; `others` are served beside the admin port.
    ///
    /// # Errors
    /// Names both.
    pub(crate) fn check_addresses(&self, others: &[(String, SocketAddr)]) -> anyhow::Result<()> {
        let admin = [("--admin-addr".to_owned(), self.admin.addr)];
        let mut known: Vec<&(String, SocketAddr)> = Vec::new();
        for one in admin.iter().chain(others) {
            let (name, addr) = one;
            if let Some((first, taken)) = known.iter().find(|(_, taken)| overlap(*taken, *addr)) {
                let message = match taken == addr {
                    true => format!("{first} and {name} are both {addr}"),
                    false => format!("{first} is {taken}, which leaves no room for {name} {addr}"),
                };
                return Err(crate::UsageError(message).into());
            }
            known.push(one);
        }
        Ok(())
    }

    /// Where --http-addr and --https-addr say that is listened.
    pub(crate) fn served(&self) -> Vec<(String, SocketAddr)> {
        let both = [
            ("--http-addr", self.http_addr),
            ("--https-addr", self.https_addr),
        ];
        let served = both.into_iter();
        served
            .filter_map(|(name, listen)| Some((name.to_owned(), listen.0?)))
            .collect()
    }

    /// Settings of the data plane.
    pub(crate) fn data_plane(&self, ticket_keys: Option<Arc<TicketKeys>>) -> data_plane::Settings {
        let usual = data_plane::Settings::default();
        data_plane::Settings {
            workers: self.workers.map_or(usual.workers, usize::from),
            connections: self.max_connections,
            endpoint_connections: self
                .limits
                .max_endpoint_connections
                .unwrap_or(usual.endpoint_connections),
            client_timeouts: data_plane::ClientTimeouts {
                handshake: self.limits.client_handshake_timeout,
                first_byte: self.limits.client_first_byte_timeout,
                head: self.limits.client_head_timeout,
                idle: self.limits.client_idle_timeout,
                body_idle: self.limits.client_body_timeout,
                body_min_rate: self.limits.client_body_min_rate,
                write_stall: self.limits.client_write_timeout,
            },
            handshakes: self.limits.max_handshakes,
            requests_per_connection: self.limits.client_max_requests,
            pool: data_plane::PoolLimits {
                idle: self.limits.upstream_idle_timeout,
                idle_per_endpoint: self.limits.upstream_max_idle,
                requests: self.limits.upstream_max_requests,
                life: self.limits.upstream_max_lifetime,
            },
            trusted_proxies: self.trusted_proxies.clone(),
            proxy_header_from: self.proxy_header_from().to_vec(),
            min_tls_version: match self.tls_min_version {
                MinTls::V12 => MinTlsVersion::Tls12,
                MinTls::V13 => MinTlsVersion::Tls13,
            },
            cipher_suites: self.tls_ciphers.clone(),
            ticket_keys,
            zone: self.zone.as_deref().map(Arc::from),
            orders: usual.orders,
            hooks: usual.hooks,
        }
    }
}

#[cfg(test)]
mod tests;
