//! Requests to the fake API server: paths, lists, watches and writes.

use super::state::{Key, Refused, Signal, key_of};
use super::{Seen, Shared, Verb};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Serves until `running` is cancelled, then drops every connection.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, running: CancellationToken) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = running.cancelled() => break,
        };
        let Ok((stream, _)) = accepted else { continue };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        let dead = shared.dead.lock().unwrap().clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let (shared, dead) = (Arc::clone(&shared), dead.clone());
                async move {
                    tokio::select! {
                        answer = answer(&shared, request, dead.clone()) => Ok::<_, Infallible>(answer),
                        () = dead.cancelled() => std::future::pending().await,
                    }
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
    connections.shutdown().await;
}

/// What a path and query ask for.
#[derive(Debug, Default)]
struct Asked {
    resource: String,
    namespace: String,
    name: String,
    status: bool,
    query: BTreeMap<String, String>,
}

impl Asked {
    fn of(uri: &http::Uri) -> Option<Self> {
        let mut parts = uri.path().trim_matches('/').split('/');
        let mut asked = Self::default();
        let version = match parts.next()? {
            "api" => parts.next()?.to_owned(),
            "apis" => format!("{}/{}", parts.next()?, parts.next()?),
            _ => return None,
        };
        let mut plural = parts.next()?;
        if plural == "namespaces" {
            asked.namespace = parts.next()?.to_owned();
            plural = parts.next()?;
        }
        asked.resource = format!("{version}/{plural}");
        asked.name = parts.next().unwrap_or_default().to_owned();
        asked.status = parts.next() == Some("status");
        for pair in uri.query().unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            asked.query.insert(name.to_owned(), unescape(value));
        }
        Some(asked)
    }

    fn query(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    fn verb(&self, method: &Method) -> Option<Verb> {
        Some(match *method {
            Method::GET if !self.name.is_empty() => Verb::Get,
            Method::GET if matches!(self.query("watch"), "true" | "1") => Verb::Watch,
            Method::GET => Verb::List,
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ => return None,
        })
    }

    /// Whether an object is in the namespace and matches the field selector.
    fn wants(&self, object: &Value) -> bool {
        let selector = self.query("fieldSelector");
        let mut fields = selector.split(',').filter(|field| !field.is_empty());
        let here = self.namespace.is_empty() || key_of(object).0 == self.namespace;
        here && fields.all(|field| {
            let (path, value, equal) = match field.split_once("!=") {
                Some((path, value)) => (path, value, false),
                None => {
                    let (path, value) = field
                        .split_once('=')
                        .expect("a field selector is path=value or path!=value");
                    (path, value.trim_start_matches('='), true)
                }
            };
            let found = object
                .pointer(&format!("/{}", path.replace('.', "/")))
                .and_then(Value::as_str);
            (found == Some(value)) == equal
        })
    }
}

fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&hex, 16).expect("a client escapes with two hex digits")
            }
            other => other,
        });
    }
    String::from_utf8(out).expect("a client sends UTF-8")
}

async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    dead: CancellationToken,
) -> Answer {
    let (head, body) = request.into_parts();
    let Some(asked) = Asked::of(&head.uri) else {
        return failure(404, "NotFound");
    };
    let Some(verb) = asked.verb(&head.method) else {
        return failure(405, "MethodNotAllowed");
    };
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let token = head
        .headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let user = token
        .and_then(|token| token.strip_prefix("Bearer "))
        .unwrap_or_default()
        .to_owned();
    let resource = if asked.status {
        format!("{}/status", asked.resource)
    } else {
        asked.resource.clone()
    };
    let (namespace, name) = (asked.namespace.clone(), asked.name.clone());

    let fault = shared.state().fault(verb, &resource);
    let answer = match (fault, verb) {
        (Some(status), _) => failure(status, "Injected"),
        (None, Verb::Watch) => watch(shared, asked, dead),
        (None, Verb::List) => list(shared, &asked),
        (None, _) => single(shared, verb, &asked, &body),
    };
    shared.state().seen.push(Seen {
        user,
        verb,
        resource,
        namespace,
        name,
        status: answer.status().as_u16(),
    });
    answer
}

/// A request for one object.
fn single(shared: &Arc<Shared>, verb: Verb, asked: &Asked, body: &[u8]) -> Answer {
    let parsed = || serde_json::from_slice::<Value>(body).map_err(|_| Refused(400, "BadRequest"));
    let resource = &asked.resource;
    let done = {
        let mut state = shared.state();
        match verb {
            Verb::Get => state
                .get(resource, &asked.namespace, &asked.name)
                .cloned()
                .ok_or(Refused(404, "NotFound")),
            Verb::Create => parsed().and_then(|mut object| {
                if !asked.namespace.is_empty() {
                    object["metadata"]["namespace"] = json!(asked.namespace);
                }
                state.create(resource, object)
            }),
            Verb::Update => parsed()
                .and_then(|object| state.update(resource, asked.status, &asked.key(), object)),
            Verb::Patch => {
                parsed().and_then(|patch| state.patch(resource, asked.status, &asked.key(), &patch))
            }
            _ => state
                .delete(resource, &asked.namespace, &asked.name)
                .ok_or(Refused(404, "NotFound")),
        }
    };
    let _ = shared.signals.send(Signal::Changed);
    match done {
        Ok(object) => json_answer(if verb == Verb::Create { 201 } else { 200 }, &object),
        Err(Refused(status, reason)) => failure(status, reason),
    }
}

/// One page. The continue token is the revision of the first page and the key of the last object.
fn list(shared: &Arc<Shared>, asked: &Asked) -> Answer {
    let mut state = shared.state();
    let limit = asked.query("limit").parse().unwrap_or(usize::MAX);
    let (mut after, mut revision) = (None, state.stored.revision);
    if let [first, namespace, name] = asked.query("continue").splitn(3, '|').collect::<Vec<_>>()[..]
    {
        revision = first.parse().expect("a continue token is one of ours");
        after = Some((namespace.to_owned(), name.to_owned()));
        if revision < state.compacted {
            return failure(410, "Expired");
        }
    }
    if state.hides(&asked.resource) {
        return json_answer(200, &page(vec![], revision, String::new()));
    }
    let found = state
        .list(&asked.resource)
        .filter(|(key, object)| Some(*key) > after.as_ref() && asked.wants(object));
    let mut found: Vec<(Key, Value)> = found
        .take(limit.saturating_add(1))
        .map(|(key, object)| (key.clone(), object.clone()))
        .collect();
    let mut token = String::new();
    if found.len() > limit {
        found.truncate(limit);
        let (namespace, name) = &found[limit - 1].0;
        token = format!("{revision}|{namespace}|{name}");
    }
    json_answer(
        200,
        &page(
            found.into_iter().map(|(_, object)| object).collect(),
            revision,
            token,
        ),
    )
}

fn page(items: Vec<Value>, revision: u64, token: String) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": revision.to_string(), "continue": token}, "items": items})
}

fn watch(shared: &Arc<Shared>, asked: Asked, dead: CancellationToken) -> Answer {
    let (lines, body) = mpsc::channel(64);
    // Before the task looks at the log, so that nothing falls between.
    let signals = shared.signals.subscribe();
    tokio::spawn(watch_until_end(
        Arc::clone(shared),
        asked,
        lines,
        signals,
        dead,
    ));
    let mut response = Response::new(Lines(body).boxed());
    response.headers_mut().insert(
        "content-type",
        http::HeaderValue::from_static("application/json"),
    );
    response
}

async fn watch_until_end(
    shared: Arc<Shared>,
    asked: Asked,
    lines: mpsc::Sender<Bytes>,
    mut signals: broadcast::Receiver<Signal>,
    dead: CancellationToken,
) {
    let mut revision: u64 = asked.query("resourceVersion").parse().unwrap_or(0);
    let seconds: u64 = asked.query("timeoutSeconds").parse().unwrap_or(3600);
    let mut end = std::pin::pin!(tokio::time::sleep(Duration::from_secs(seconds)));
    let line = |kind: &str, object: &Value| {
        Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
    };
    if revision < shared.state().compacted {
        let _ = lines.send(line("ERROR", &status(410, "Expired"))).await;
        return;
    }
    loop {
        let news: Vec<Bytes> = {
            let state = shared.state();
            let entries = state
                .log
                .iter()
                .filter(|entry| entry.revision > revision && entry.resource == asked.resource);
            let news = entries
                .filter(|entry| asked.wants(&entry.object))
                .map(|entry| line(entry.kind, &entry.object))
                .collect();
            revision = revision.max(state.stored.revision);
            news
        };
        for one in news {
            if lines.send(one).await.is_err() {
                return;
            }
        }
        let signal = tokio::select! {
            signal = signals.recv() => signal,
            () = end.as_mut() => return,
            () = lines.closed() => return,
            () = dead.cancelled() => {
                // The body stays open and says nothing until the client gives up.
                lines.closed().await;
                return;
            }
        };
        match signal {
            Ok(Signal::Changed) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Ok(Signal::Expire(resource)) if resource == asked.resource => {
                let _ = lines.send(line("ERROR", &status(410, "Expired"))).await;
                return;
            }
            Ok(Signal::Drop(resource)) if resource == asked.resource => return,
            Ok(Signal::Line(resource, text)) if resource == asked.resource => {
                let _ = lines.send(Bytes::from(format!("{text}\n"))).await;
            }
            Ok(Signal::Bookmark) => {
                let now = shared.state().stored.revision.to_string();
                let object = json!({"apiVersion": "v1", "kind": "Bookmark", "metadata": {"resourceVersion": now}});
                let _ = lines.send(line("BOOKMARK", &object)).await;
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// The body of a watch.
struct Lines(mpsc::Receiver<Bytes>);

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

fn json_answer(status: u16, value: &Value) -> Answer {
    let mut response =
        Response::new(http_body_util::Full::new(Bytes::from(value.to_string())).boxed());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status of ours");
    response.headers_mut().insert(
        "content-type",
        http::HeaderValue::from_static("application/json"),
    );
    response
}

fn status(code: u16, reason: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": reason, "reason": reason, "code": code})
}

fn failure(code: u16, reason: &str) -> Answer {
    json_answer(code, &status(code, reason))
}
