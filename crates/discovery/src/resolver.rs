//! Asks the DNS: a thin shell around hickory.
//!
//! Its cache is off (`schedule` decides how long an answer holds), names are absolute, `/etc/hosts` has no say, and the
//! system's `resolv.conf` is read again after a failure. Questions go by UDP with EDNS, and by TCP when the answer was cut;
//! identity, port and question of an answer are hickory's to check.

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
use routing_table::{DnsQuery, DnsSource, Endpoint};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

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
    /// `None` before the first question, and after a failure of the system's.
    inner: Option<TokioResolver>,
}

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

    pub(crate) fn error(&self) -> Option<&str> {
        match self {
            Self::Failure(error) => Some(error),
            _ => None,
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
            inner: None,
        }
    }

    /// Asks once.
    pub(crate) async fn ask(&mut self) -> Answer {
        let answer = match self.resolver() {
            Ok(resolver) => {
                let asked = lookup(&resolver, &self.source);
                // Several questions hang together, and each of them may be tried twice.
                match tokio::time::timeout(self.timeout * 2, asked).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(error)) => error.into(),
                    Err(_) => Answer::Failure("no answer in time".to_owned()),
                }
            }
            Err(error) => Answer::Failure(error.to_string()),
        };
        if matches!(answer, Answer::Failure(_)) {
            // Perhaps the system's name servers are others now.
            self.inner = None;
        }
        answer
    }

    fn resolver(&mut self) -> Result<TokioResolver, NetError> {
        if let Some(resolver) = &self.inner {
            return Ok(resolver.clone());
        }
        let provider = TokioRuntimeProvider::default();
        let mut builder = if self.source.resolvers.is_empty() {
            TokioResolver::builder(provider)?
        } else {
            let servers = self.source.resolvers.iter().map(|addr| {
                let mut server = NameServerConfig::udp_and_tcp(addr.ip());
                for connection in &mut server.connections {
                    connection.port = addr.port();
                }
                server
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(config, provider)
        };
        options(builder.options_mut(), self.timeout);
        Ok(self.inner.insert(builder.build()?).clone())
    }
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

async fn lookup(resolver: &TokioResolver, source: &DnsSource) -> Result<Answer, NetError> {
    match &source.query {
        DnsQuery::Address(name, port) => {
            let (ips, ttl) = addresses(resolver, &absolute(name)?).await?;
            let found = records::of_addresses(&ips, *port, source.any_address);
            Ok(Answer::Records(found, ttl))
        }
        DnsQuery::Srv(name) => services(resolver, &absolute(name)?, source.any_address).await,
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
) -> Result<Answer, NetError> {
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
    let mut known: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
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
                // A target that is gone costs itself. One of which nothing was learnt would look gone, so nothing was learnt.
                Err(error) => match Answer::from(error) {
                    Answer::Empty(_) => {}
                    failure => return Ok(failure),
                },
            }
        }
    }
    let mut found = records::of_srv(&records, &known, any_address);
    found.left_out += left_out;
    Ok(Answer::Records(found, ttl))
}

/// Both families. Of a name that has only one, the other's emptiness is no news.
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
    let mut empty = None;
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
            // Some servers have no more to say of a family that is not there.
            Err(error) if error.is_no_records_found() => empty = Some(error),
            Err(error) => return Err(error),
        }
    }
    match (ips.is_empty(), empty) {
        (true, Some(empty)) => Err(empty),
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
