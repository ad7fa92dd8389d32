//! What a request wants of the choice of its endpoint, as the cluster's policy reads it: what is hashed, where it should stay,
//! what it costs.

use crate::forwarded_headers::client_addr;
use crate::record::RequestInfo;
use crate::request_head::RequestTarget;
use crate::worker::Worker;
use balance::Ask;
use balance::order::hashed::{digest, hash};
use http::header::{HeaderMap, HeaderValue};
use routing_table::matcher::conditions::cookies;
use routing_table::policy::{Affinity, AffinityMode, Balancing, Cost, HashOn};
use routing_table::{Policy, Route};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// A request costs so much for each unit of [`Cost::Length`]'s `base`; its `per_mebibyte` is then the cost of a byte.
const COST_UNIT: u64 = 1024 * 1024;

/// What one request wants.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    hash: Option<u64>,
    stay_at: Option<u64>,
    pub(crate) cost: u64,
    /// The client has no cookie yet, and gets this one.
    new_id: Option<HeaderValue>,
}

impl Wishes {
    /// Reads a request. `length` is that of its body, where it is declared.
    pub(crate) fn read(
        policy: &Policy,
        request: &RequestInfo,
        target: &RequestTarget<'_>,
        length: Option<u64>,
    ) -> Self {
        let mut wishes = Self::default();
        let headers = &request.parts.headers;
        match &policy.balancing {
            Balancing::RingHash(on) | Balancing::Maglev(on) => {
                wishes.hash = hashed(on, request, target);
            }
            Balancing::SourceIp | Balancing::Custom(_) => {
                wishes.hash = hashed(&HashOn::ClientIp, request, target)
            }
            Balancing::Cost(cost) => wishes.cost = cost_of(cost, headers, length),
            _ => {}
        }
        if let Some(affinity) = &policy.affinity {
            let known = cookie(headers, &affinity.cookie);
            match affinity.mode {
                AffinityMode::Persistent => {
                    wishes.stay_at = known.and_then(from_hex);
                }
                AffinityMode::Balanced => {
                    let id = match known {
                        Some(known) => known,
                        None => wishes.new_id.insert(request.worker.ids.next()).as_bytes(),
                    };
                    wishes.hash = Some(hash(id));
                }
            }
        }
        wishes
    }

    /// What a connection wants of which nothing is known but who has made it.
    pub(crate) fn of_client(policy: &Policy, client: IpAddr) -> Self {
        let hash = match &policy.balancing {
            Balancing::SourceIp
            | Balancing::Custom(_)
            | Balancing::RingHash(HashOn::ClientIp)
            | Balancing::Maglev(HashOn::ClientIp) => Some(hash_of(client)),
            _ => None,
        };
        Self {
            hash,
            ..Self::default()
        }
    }

    /// Wants this endpoint before all others.
    pub(crate) fn prefer(&mut self, endpoint: SocketAddr) {
        self.stay_at = Some(digest(endpoint));
    }

    /// Is hashed by this.
    pub(crate) fn hash_by(&mut self, key: &[u8]) {
        self.hash = Some(hash(key));
    }

    /// What the request asks of the endpoints.
    pub(crate) fn ask<'a>(&self, tried: &'a [SocketAddr], limit: u32, worker: &Worker) -> Ask<'a> {
        Ask {
            tried,
            limit,
            hash: self.hash,
            stay_at: self.stay_at,
            cost: self.cost,
            worker: worker.index,
            now: worker.now(),
        }
    }

    /// The cookie that keeps the client at this endpoint, unless it has it.
    pub(crate) fn cookie(
        &self,
        affinity: &Affinity,
        route: &Route,
        addr: SocketAddr,
        https: bool,
    ) -> Option<HeaderValue> {
        let value = match affinity.mode {
            AffinityMode::Balanced => self.new_id.as_ref()?.to_str().ok()?.to_owned(),
            AffinityMode::Persistent => {
                let place = digest(addr);
                if self.stay_at == Some(place) {
                    return None;
                }
                format!("{place:016x}")
            }
        };
        let path = match (affinity.path.as_deref(), route.path.key()) {
            (Some(path), _) => path,
            // A path may have what ends an attribute of a cookie.
            (None, key) if key.is_empty() || key.contains(';') => "/",
            (None, key) => key,
        };
        let mut text = format!("{}={value}; Path={path}; HttpOnly", affinity.cookie);
        // Writing to a String cannot fail.
        if let Some(age) = affinity.max_age {
            let _ = write!(text, "; Max-Age={}", age.as_secs());
        }
        if let Some(domain) = &affinity.domain {
            let _ = write!(text, "; Domain={domain}");
        }
        if let Some(same_site) = affinity.same_site {
            let _ = write!(text, "; SameSite={same_site}");
        }
        if affinity.secure.unwrap_or(https) {
            text.push_str("; Secure");
        }
        HeaderValue::from_str(&text).ok()
    }
}

/// How much of a request's cost is behind it for each byte of its body that has passed.
pub(crate) fn cost_of_byte(policy: &Policy) -> u64 {
    match &policy.balancing {
        Balancing::Cost(Cost::Length { per_mebibyte, .. }) => u64::from(*per_mebibyte),
        _ => 0,
    }
}

fn cost_of(cost: &Cost, headers: &HeaderMap, length: Option<u64>) -> u64 {
    match cost {
        Cost::Length { base, per_mebibyte } => {
            let of_body = length.unwrap_or(0).saturating_mul(u64::from(*per_mebibyte));
            // Far below what would overflow in the sum of all that an endpoint has.
            (u64::from(*base) * COST_UNIT).saturating_add(of_body.min(1 << 48))
        }
        Cost::Header(name) => {
            let value = headers.get(&**name).and_then(|value| value.to_str().ok());
            let number = value.and_then(|value| value.trim().parse::<u32>().ok());
            u64::from(number.unwrap_or(1))
        }
    }
}

fn hashed(on: &HashOn, request: &RequestInfo, target: &RequestTarget<'_>) -> Option<u64> {
    let headers = &request.parts.headers;
    let bytes = match on {
        HashOn::ClientIp => {
            let trusted = &request.worker.settings.trusted_proxies;
            let client = client_addr(headers, &request.client, trusted);
            return Some(hash_of(client));
        }
        HashOn::Header(name) => headers.get(&**name)?.as_bytes(),
        HashOn::Cookie(name) => cookie(headers, name)?,
        HashOn::Query(name) => {
            let query = request.parts.uri.query()?;
            let mut pairs = query
                .split('&')
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            pairs.find(|(key, _)| *key == &**name)?.1.as_bytes()
        }
        HashOn::Path => target.path.as_bytes(),
        HashOn::PathAndQuery => {
            let query = request.parts.uri.query().unwrap_or_default();
            return Some(hash(target.path.as_bytes()) ^ hash(query.as_bytes()).rotate_left(1));
        }
    };
    Some(hash(bytes))
}

fn hash_of(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()),
    }
}

/// The value of a cookie; the first of several that has one.
fn cookie<'a>(headers: &'a HeaderMap, name: &'a str) -> Option<&'a [u8]> {
    cookies(headers, name).find(|value| !value.is_empty())
}

fn from_hex(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text)
        .ok()
        .filter(|text| text.len() == 16)?;
    u64::from_str_radix(text, 16).ok()
}
