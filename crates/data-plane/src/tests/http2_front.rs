//! Clients that speak HTTP/2: agreed upon by ALPN, streams balanced one by one.

use super::host;
use super::tls::{certificate, serve_tls, tls_table};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::BTreeMap;
use test_support::{Authority, Backend, TlsClient};

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
