//! Asks the DNS: a thin shell around hickory.
//!
//! Its cache is off (`schedule` decides how long an answer holds), names are absolute, `/etc/hosts` has no say, and the
//! system's `resolv.conf` is read again when it changes. Questions go by UDP with EDNS, and by TCP when the answer was cut;
//! identity, port and question of an answer are hickory's to check. Of several name servers the first that has an answer
//! counts: one that fails does not speak for the others.

use crate::records::{self, Found, Srv};
use crate::schedule::Kind;
use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use routing_table::{DnsQuery, DnsSource, Endpoint};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long an empty answer holds that does not say it.
const EMPTY_TTL: Duration = Duration::from_secs(5);
/// Bytes of an answer by UDP that we take: what passes without fragments nearly everywhere.
const UDP_PAYLOAD: u16 = 1232;
/// Targets of SRV records that are looked up at once.
const AT_ONCE: usize = 16;

/// Asks for one source.
pub(crate) struct Resolver {
    source: Arc<DnsSource>,
    timeout: Duration,
    /// One for each name server, in order; none before the first question.
    servers: Vec<TokioResolver>,
    /// When the system's file, which they are from, was last written.
    written: Option<SystemTime>,
    /// What the targets of the last answer had as addresses.
    remembered: Addresses,
}

/// Addresses by name.
type Addresses = BTreeMap<String, Vec<IpAddr>>;

/// The system's name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What came of a question.
pub(crate) enum Answer {
    Records(Found, Duration),
    Empty(Duration),
    Failure(String),
}

impl Answer {
    /// For the schedule.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Records(_, ttl) => Kind::Records(*ttl),
            Self::Empty(ttl) => Kind::Empty(*ttl),
            Self::Failure(_) => Kind::Failure,
        }
    }

    /// For the metric.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Records(..) => "answer",
            Self::Empty(_) => "empty",
            Self::Failure(_) => "failure",
        }
    }

    pub(crate) fn left_out(&self) -> usize {
        match self {
            Self::Records(found, _) => found.left_out,
            _ => 0,
        }
    }

    pub(crate) fn into_endpoints(self) -> Vec<Endpoint> {
        match self {
            Self::Records(found, _) => found.endpoints,
            _ => Vec::new(),
        }
    }
}

impl From<NetError> for Answer {
    fn from(error: NetError) -> Self {
        let NetError::Dns(DnsError::NoRecordsFound(none)) = &error else {
            return Self::Failure(error.to_string());
        };
        // Who knows that there is no such record says so with an SOA (RFC 2308 section 2.2). Without it, it is a server that
        // does not know, or a chain of aliases without end.
        let is_known = match none.response_code {
            ResponseCode::NXDomain => true,
            ResponseCode::NoError => none.soa.is_some(),
            _ => false,
        };
        if !is_known {
            return Self::Failure(error.to_string());
        }
        let ttl = none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into()));
        Self::Empty(ttl.unwrap_or(EMPTY_TTL))
    }
}

impl Resolver {
    pub(crate) fn new(source: Arc<DnsSource>, timeout: Duration) -> Self {
        Self {
            source,
            timeout,
            servers: Vec::new(),
            written: None,
            remembered: Addresses::new(),
        }
    }

    /// Asks once: each name server until one has an answer.
    pub(crate) async fn ask(&mut self) -> Answer {
        if let Err(error) = self.find_servers() {
            return Answer::Failure(error.to_string());
        }
        let mut failure = Answer::Failure("no name server is known".to_owned());
        for server in &self.servers {
            let asked = lookup(server, &self.source, &self.remembered);
            // Several questions hang together, and each of them may be tried twice.
            let answer = match tokio::time::timeout(self.timeout * 2, asked).await {
                Ok(Ok((answer, addresses))) => {
                    self.remembered = addresses;
                    answer
                }
                Ok(Err(error)) => error.into(),
                Err(_) => Answer::Failure("no answer in time".to_owned()),
            };
            match answer {
                Answer::Failure(_) => failure = answer,
                answer => return answer,
            }
        }
        failure
    }

    fn find_servers(&mut self) -> Result<(), NetError> {
        let ours = &self.source.resolvers;
        let servers = if ours.is_empty() {
            let written = std::fs::metadata(RESOLV_CONF).and_then(|file| file.modified());
            let written = written.ok();
            if !self.servers.is_empty() && written == self.written {
                return Ok(());
            }
            let (config, _) = read_system_conf()?;
            self.written = written;
            config.name_servers().to_vec()
        } else if self.servers.is_empty() {
            ours.iter().map(name_server).collect()
        } else {
            return Ok(());
        };
        self.servers = servers
            .into_iter()
            .map(|server| {
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                let provider = TokioRuntimeProvider::default();
                let mut builder = TokioResolver::builder_with_config(config, provider);
                options(builder.options_mut(), self.timeout);
                builder.build()
            })
            .collect::<Result<_, _>>()?;
        Ok(())
    }
}

fn name_server(addr: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(addr.ip());
    for connection in &mut server.connections {
        connection.port = addr.port();
    }
    server
}

fn options(options: &mut ResolverOpts, timeout: Duration) {
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.edns0 = true;
    options.edns_payload_len = UDP_PAYLOAD;
    options.timeout = timeout / 2;
    options.attempts = 1;
    options.try_tcp_on_error = true;
}

/// The answer, and the addresses to remember.
async fn lookup(
    resolver: &TokioResolver,
    source: &DnsSource,
    remembered: &Addresses,
) -> Result<(Answer, Addresses), NetError> {
    match &source.query {
        DnsQuery::Address(name, port) => {
            let (ips, ttl) = addresses(resolver, &absolute(name)?).await?;
            let found = records::of_addresses(&ips, *port, source.any_address);
            Ok((Answer::Records(found, ttl), Addresses::new()))
        }
        DnsQuery::Srv(name) => {
            services(resolver, &absolute(name)?, source.any_address, remembered).await
        }
    }
}

fn absolute(name: &str) -> Result<Name, NetError> {
    let mut name = Name::from_utf8(name)?;
    name.set_fqdn(true);
    Ok(name)
}

/// SRV records, and the addresses of their targets: those that came along, and what has to be asked for.
async fn services(
    resolver: &TokioResolver,
    name: &Name,
    any_address: bool,
    remembered: &Addresses,
) -> Result<(Answer, Addresses), NetError> {
    let answer = resolver.lookup(name.clone(), RecordType::SRV).await?;
    let mut ttl = least_ttl(&answer);
    let mut records: Vec<Srv> = answer
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(Srv {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: text(&srv.target),
            }),
            _ => None,
        })
        .collect();
    // The same ones of an answer that comes in another order.
    records.sort();
    let left_out = records.len().saturating_sub(records::MOST);
    records.truncate(records::MOST);
    let mut known = Addresses::new();
    for record in answer.additionals() {
        if let Some(ip) = ip(&record.data) {
            ttl = ttl.min(Duration::from_secs(record.ttl.into()));
            known.entry(text(&record.name)).or_default().push(ip);
        }
    }
    let missing: BTreeSet<String> = records
        .iter()
        .filter(|record| !record.target.is_empty() && !known.contains_key(&record.target))
        .map(|record| record.target.clone())
        .collect();
    let missing: Vec<String> = missing.into_iter().collect();
    let mut lost = None;
    for some in missing.chunks(AT_ONCE) {
        let asked = join_all(some.iter().map(|target| async move {
            let name = absolute(target)?;
            addresses(resolver, &name).await
        }));
        for (target, answer) in some.iter().zip(asked.await) {
            match answer {
                Ok((ips, holds)) => {
                    ttl = ttl.min(holds);
                    known.insert(target.clone(), ips);
                }
                Err(error) => match Answer::from(error) {
                    // A target that is gone costs itself.
                    Answer::Empty(_) => {}
                    // Of one of which nothing was learnt, what was known holds; it is asked for again soon.
                    failure => {
                        ttl = ttl.min(EMPTY_TTL);
                        match remembered.get(target) {
                            Some(ips) => drop(known.insert(target.clone(), ips.clone())),
                            None => lost = Some(failure),
                        }
                    }
                },
            }
        }
    }
    let mut found = records::of_srv(&records, &known, any_address);
    // Nothing at all was learnt.
    if let Some(failure) = lost.take_if(|_| found.endpoints.is_empty()) {
        return Ok((failure, remembered.clone()));
    }
    found.left_out += left_out;
    Ok((Answer::Records(found, ttl), known))
}

/// Both families. One is enough: of a name that has only that one, or whose other nobody can tell.
async fn addresses(
    resolver: &TokioResolver,
    name: &Name,
) -> Result<(Vec<IpAddr>, Duration), NetError> {
    let (v4, v6) = tokio::join!(
        resolver.lookup(name.clone(), RecordType::A),
        resolver.lookup(name.clone(), RecordType::AAAA)
    );
    let mut ips = Vec::new();
    let mut ttl = Duration::MAX;
    let mut nothing = None;
    for answer in [v4, v6] {
        match answer {
            Ok(answer) => {
                ttl = ttl.min(least_ttl(&answer));
                ips.extend(
                    answer
                        .answers()
                        .iter()
                        .filter_map(|record| ip(&record.data)),
                );
            }
            // A failure says more than emptiness: of a name without addresses it leaves open whether it has some.
            Err(error) if error.is_no_records_found() => nothing = nothing.or(Some(error)),
            Err(error) => {
                ttl = ttl.min(EMPTY_TTL);
                nothing = Some(error);
            }
        }
    }
    match (ips.is_empty(), nothing) {
        (true, Some(nothing)) => Err(nothing),
        _ => Ok((ips, ttl)),
    }
}

fn ip(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(a.0.into()),
        RData::AAAA(aaaa) => Some(aaaa.0.into()),
        _ => None,
    }
}

fn least_ttl(answer: &Lookup) -> Duration {
    let ttls = answer.answers().iter().map(|record| record.ttl);
    ttls.min()
        .map_or(EMPTY_TTL, |ttl| Duration::from_secs(ttl.into()))
}

/// A name in lower case without the dot at its end.
fn text(name: &Name) -> String {
    let text = name.to_lowercase().to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}
