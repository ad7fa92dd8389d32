//! Clients that speak HTTP/2: agreed upon by ALPN, streams balanced one by one.

use super::tls::{certificate, serve_tls, tls_table};
use super::{host, serve};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::BTreeMap;
use std::time::Duration;
use test_support::h2_raw::{Connection, Got, block, frame, headers, kind, reset};
use test_support::{Act, Authority, Backend, Recorder, TlsClient};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_hundred_streams_of_one_connection_are_balanced_one_by_one() {
    let mut backends = Vec::new();
    for name in ["a", "b", "c", "d"] {
        backends.push(Backend::start(name).await);
    }
    let addrs: Vec<_> = backends.iter().map(|backend| backend.addr).collect();
    let own = certificate(&Authority::new("servers").server(&["a.test"]));
    let proxy = serve_tls(tls_table(&[(&["a.test"], &own)], &[host("a.test", &addrs)]));
    let client = TlsClient::new(None).alpn("h2");
    let stream = client.connect(proxy.addr, "a.test").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let asked: Vec<_> = (0..100)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move {
                let request = Request::get("https://a.test/").body(Full::new(Bytes::new()));
                let answer = sender.send_request(request.unwrap()).await.unwrap();
                assert_eq!(answer.status(), 200);
                answer.into_body().collect().await.unwrap().to_bytes()
            })
        })
        .collect();
    let mut shares = BTreeMap::new();
    for one in asked {
        *shares.entry(one.await.unwrap()).or_insert(0) += 1;
    }
    assert_eq!(shares.into_values().collect::<Vec<_>>(), [25, 25, 25, 25]);
    assert_eq!(proxy.metric("tidegate_connections_accepted_total"), 1.0);
}

/// Not only of what was taken back before it was handed out, which `h2` counts: an endpoint has seen each of these.
#[tokio::test]
async fn a_client_that_takes_its_requests_back_from_endpoints_is_told_to_calm_down() {
    const CALM: u32 = 11;
    const CANCEL: u32 = 8;
    let backend = Recorder::start("a").await;
    backend.begin(vec![Act::silence()]);
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    let mut client = Connection::open(TcpStream::connect(proxy.addr).await.unwrap(), &[]).await;
    let request = block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a.test"),
    ]);
    for round in 0..5 {
        let streams = (0..50).map(|n| 2 * (50 * round + n) + 1);
        let heads = streams.clone().flat_map(|one| headers(one, true, &request));
        client.send(&heads.collect::<Vec<u8>>()).await;
        let all = 50 * (round as usize + 1);
        let seen = backend.wait(Duration::from_secs(5), |seen| seen.requests.len() >= all);
        assert_eq!(seen.await.requests.len(), all);
        let resets = streams.flat_map(|one| reset(one, CANCEL));
        client.send(&resets.collect::<Vec<u8>>()).await;
        proxy.metric_becomes("tidegate_requests_active", 0.0).await;
        let got = client.read(Duration::ZERO, Got::is_over).await;
        assert_eq!(got.goaway, None, "after {all}");
    }
    // In place of the answer to what comes next.
    client.send(&frame(kind::PING, 0, 0, b"12345678")).await;
    let got = client.read(Duration::from_secs(5), |got| got.closed).await;
    assert_eq!((got.goaway, got.closed), (Some(CALM), true));
}
