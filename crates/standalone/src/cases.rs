//! Rule tests: requests and what should become of them, tried against a table without serving anything.
//!
//! What is compared is what the table decides: route, backend, the path that would be forwarded, or the status of an answer
//! of our own. Nothing is sent, so what endpoints would answer is not part of it.

use crate::document::{self, Format, Node, no_document};
use crate::problem::{Problem, Step, Wrong, printable, steps, unknown};
use crate::source;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use routing_table::filter::{Ending, Passage};
use routing_table::matcher::host::normal_host;
use routing_table::matcher::path::normal_path;
use routing_table::{Action, Filter, ListenerProtocol, RequestFields, RoutingTable};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;
use std::path::Path;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: Option<String>,
    request: RequestCase,
    expect: Expectation,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestCase {
    /// Default: the first that speaks http or https.
    listener: Option<String>,
    /// Default: GET.
    method: Option<String>,
    host: String,
    /// With the query, if there is one.
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The address of the client, whatever header fields say. Default: nobody knows.
    client: Option<String>,
}

/// At least one of these.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    route: Option<String>,
    backend: Option<String>,
    path: Option<String>,
    status: Option<u16>,
}

/// What came of all cases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Cases that are as expected.
    pub passed: usize,
    /// Cases that are not.
    pub failed: usize,
    /// The cases that failed, each with what differs.
    pub report: String,
}

/// What the table decides about a request.
#[derive(Debug, Default)]
struct Decision {
    route: Option<String>,
    backend: Option<String>,
    path: Option<String>,
    status: Option<u16>,
}

/// Tries the cases of a file.
///
/// # Errors
/// When the file is malformed; no case is tried then.
pub fn run(file: &Path, table: &RoutingTable) -> Result<Outcome, Problem> {
    let text = source::text(file)?;
    let lookup = |name: &str| std::env::var(name).ok();
    let root = document::parse(&text, Format::of(file), &lookup)
        .map_err(|wrong| no_document(file, wrong))?;
    try_all(file, &root, table).map_err(|wrong| root.problem(file, wrong))
}

fn try_all(file: &Path, root: &Node, table: &RoutingTable) -> Result<Outcome, Wrong> {
    let Cases { cases } = document::reader::read(root)?;
    if cases.is_empty() {
        return Err(Wrong::at(
            &steps!["cases"],
            "the list is empty: nothing would be tested",
        ));
    }
    let mut decided = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let expect = &case.expect;
        if expect.route.is_none()
            && expect.backend.is_none()
            && expect.path.is_none()
            && expect.status.is_none()
        {
            let message =
                "nothing is expected: one of \"route\", \"backend\", \"path\" and \"status\"";
            return Err(Wrong::at(&steps!["cases", index, "expect"], message));
        }
        decided.push(decide(
            &case.request,
            table,
            &steps!["cases", index, "request"],
        )?);
    }
    let mut outcome = Outcome::default();
    for (index, (case, decision)) in cases.iter().zip(decided).enumerate() {
        let differences = differences(&case.expect, &decision);
        if differences.is_empty() {
            outcome.passed += 1;
            continue;
        }
        outcome.failed += 1;
        let line = |path: &[Step]| root.place_of(path).line;
        let request = &case.request;
        let name = case
            .name
            .as_deref()
            .map(|name| format!(" \"{}\"", printable(name)));
        let report = &mut outcome.report;
        // Writing to a String cannot fail.
        let _ = writeln!(
            report,
            "{}:{}: case {index}{}: {} {}{}",
            file.display(),
            line(&steps!["cases", index]),
            name.unwrap_or_default(),
            request.method.as_deref().unwrap_or("GET"),
            request.host,
            request.path
        );
        for (key, expected, found) in differences {
            let line = line(&steps!["cases", index, "expect", key]);
            let _ = writeln!(
                report,
                "  line {line}: {key}: expected {expected}, found {found}"
            );
        }
    }
    Ok(outcome)
}

/// Key, what was expected, what was found.
fn differences(expect: &Expectation, found: &Decision) -> Vec<(&'static str, String, String)> {
    let mut out = Vec::new();
    let none = || "none".to_owned();
    for (key, expected, found) in [
        ("route", &expect.route, &found.route),
        ("backend", &expect.backend, &found.backend),
        ("path", &expect.path, &found.path),
    ] {
        if let Some(expected) = expected
            && Some(expected) != found.as_ref()
        {
            out.push((key, expected.clone(), found.clone().unwrap_or_else(none)));
        }
    }
    if let Some(expected) = expect.status
        && Some(expected) != found.status
    {
        let shown = match (found.status, &found.backend) {
            (Some(status), _) => status.to_string(),
            (None, Some(backend)) => format!("that of backend {backend}"),
            (None, None) => none(),
        };
        out.push(("status", expected.to_string(), shown));
    }
    out
}

fn decide(request: &RequestCase, table: &RoutingTable, at: &[Step]) -> Result<Decision, Wrong> {
    let below = |key: &str| [at, &steps![key]].concat();
    let listener = listener(request, table, &below("listener"))?;
    let method = request.method.as_deref().unwrap_or("GET");
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| Wrong::at(&below("method"), "not a method"))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let at = [at, &steps!["headers", name]].concat();
        let field = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Wrong::at(&at, "not the name of a header field"))?;
        let value = HeaderValue::from_str(value)
            .map_err(|_| Wrong::at(&at, "not the value of a header field"))?;
        headers.append(field, value);
    }
    let client: Option<IpAddr> = match &request.client {
        None => None,
        Some(text) => {
            let addr = text.trim().parse::<IpAddr>();
            let message = "not an address, such as 10.1.2.3";
            let addr = addr.map_err(|_| Wrong::at(&below("client"), message))?;
            Some(addr.to_canonical())
        }
    };
    let status = |status| Decision {
        status: Some(status),
        ..Decision::default()
    };
    let (raw_path, query) = match request.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.path.as_str(), None),
    };
    let (Ok(host), Ok(path)) = (normal_host(&request.host), normal_path(raw_path)) else {
        return Ok(status(400));
    };
    let fields = RequestFields {
        method: &method,
        headers: &headers,
        query,
        client: &client,
    };
    let found = table.find(listener, &host, &path, &fields);
    let Some(route) = found.and_then(|index| table.routes().get(index.get())) else {
        return Ok(status(404));
    };
    let name = Some(route.id.name.to_string());
    let mut passage = Passage {
        client: client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        is_https: matches!(
            table.listeners()[listener].protocol,
            ListenerProtocol::Https(_)
        ),
        host: &host,
        path: Cow::Borrowed(&path),
        query,
        matched: &route.path,
        sent: &headers,
        headers: None,
        upstream_host: None,
    };
    // Where nothing is known of who asks, what is decided by that is not part of it.
    let decided = |filter: &&Filter| client.is_some() || !matches!(filter, Filter::AccessList(_));
    for filter in route.filters.iter().filter(decided) {
        let ended = match filter.as_apply().on_request(&mut passage) {
            ControlFlow::Continue(()) => continue,
            ControlFlow::Break(Ending::Redirect { status, .. }) => status,
            ControlFlow::Break(Ending::Forbidden) => 403,
            ControlFlow::Break(Ending::BadTarget) => 400,
        };
        return Ok(Decision {
            route: name,
            ..status(ended)
        });
    }
    let path = passage.path;
    Ok(match &route.action {
        Action::Respond(response) => Decision {
            route: name,
            ..status(response.status)
        },
        Action::Forward(cluster) => Decision {
            route: name,
            backend: table
                .cluster(*cluster)
                .map(|cluster| cluster.id.service.to_string()),
            path: Some(match query {
                Some(query) => format!("{path}?{query}"),
                None => path.into_owned(),
            }),
            status: None,
        },
    })
}

/// The position of the listener that a request comes to.
fn listener(request: &RequestCase, table: &RoutingTable, at: &[Step]) -> Result<usize, Wrong> {
    let all = table.listeners();
    let serves = |position: &usize| {
        let protocol = &all[*position].protocol;
        matches!(
            protocol,
            ListenerProtocol::Http | ListenerProtocol::Https(_)
        )
    };
    let mut http = (0..all.len()).filter(serves);
    match &request.listener {
        None => http
            .next()
            .ok_or_else(|| Wrong::at(at, "the configuration has no listener of http or https")),
        Some(name) => http
            .find(|position| *all[*position].id.0 == **name)
            .ok_or_else(|| {
                let known: Vec<&str> = (0..all.len())
                    .filter(serves)
                    .map(|p| &*all[p].id.0)
                    .collect();
                Wrong::at(at, unknown("listener", name, &known))
            }),
    }
}
