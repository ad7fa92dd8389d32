//! Relays in exact numbers: connections in turn, much data both ways, what the sockets are set to.

use super::{one_worker, relay_table, serve_relay};
use routing_table::RelayLimits;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn listeners(count: usize) -> (Vec<TcpListener>, Vec<SocketAddr>) {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addrs = listeners
        .iter()
        .map(|one| one.local_addr().unwrap())
        .collect();
    (listeners, addrs)
}

#[tokio::test]
async fn ten_connections_at_three_endpoints_are_four_three_and_three() {
    let (mut listeners, addrs) = listeners(3).await;
    // Their turns are in the order of their addresses.
    listeners.sort_by_key(|one| one.local_addr().unwrap());
    let table = relay_table(false, &addrs, RelayLimits::TCP, |_, _| {});
    let (proxy, _) = serve_relay(table, one_worker());
    let mut open = Vec::new();
    for n in 0..10 {
        open.push(TcpStream::connect(proxy.addr).await.unwrap());
        let accepted = listeners[n % 3].accept();
        let accepted = tokio::time::timeout(Duration::from_secs(10), accepted).await;
        open.push(accepted.expect("its turn").unwrap().0);
    }
    assert_eq!(proxy.metric("tidegate_tcp_connections_open"), 10.0);
}

const MUCH: usize = 100 << 20;

/// Sends so much of a pattern.
async fn send(mut stream: impl AsyncWriteExt + Unpin, seed: u8) {
    let mut piece = vec![0; 1 << 16];
    for at in 0..MUCH / piece.len() {
        let first = (at as u8).wrapping_mul(31).wrapping_add(seed);
        piece.fill(first);
        stream.write_all(&piece).await.unwrap();
    }
    stream.shutdown().await.unwrap();
}

/// Reads it, and compares it with what was sent.
async fn compare(mut stream: impl AsyncReadExt + Unpin, seed: u8) {
    let mut piece = vec![0; 1 << 16];
    for at in 0..MUCH / piece.len() {
        stream.read_exact(&mut piece).await.unwrap();
        let first = (at as u8).wrapping_mul(31).wrapping_add(seed);
        assert!(piece.iter().all(|byte| *byte == first), "piece {at}");
    }
    assert_eq!(stream.read(&mut piece).await.unwrap(), 0);
}

#[tokio::test]
async fn a_hundred_mebibytes_both_ways_arrive_as_they_were_sent() {
    let (listeners, addrs) = listeners(1).await;
    let table = relay_table(false, &addrs, RelayLimits::TCP, |_, _| {});
    let (proxy, _) = serve_relay(table, one_worker());
    let client = TcpStream::connect(proxy.addr).await.unwrap();
    let (endpoint, _) = listeners[0].accept().await.unwrap();
    let (client_read, client_write) = client.into_split();
    let (endpoint_read, endpoint_write) = endpoint.into_split();
    let all = async {
        tokio::join!(
            send(client_write, 1),
            compare(endpoint_read, 1),
            send(endpoint_write, 2),
            compare(client_read, 2),
        )
    };
    tokio::time::timeout(Duration::from_secs(120), all)
        .await
        .unwrap();
    proxy
        .metric_becomes("tidegate_tcp_connections_open", 0.0)
        .await;
    let much = MUCH as f64;
    assert_eq!(proxy.metric("tidegate_tcp_received_bytes_total"), much);
    assert_eq!(proxy.metric("tidegate_tcp_sent_bytes_total"), much);
}

/// Which timer runs for a connection from `local` to `remote`, as the kernel tells: 2 is that of keep-alive.
fn timer(local: SocketAddr, remote: SocketAddr) -> Option<u8> {
    let shown = |addr: SocketAddr| {
        let SocketAddr::V4(v4) = addr else {
            panic!("not of this test: {addr}")
        };
        format!(
            "{:08X}:{:04X}",
            u32::from_le_bytes(v4.ip().octets()),
            v4.port()
        )
    };
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_it = words.next() == Some(&shown(local)) && words.next() == Some(&shown(remote));
        is_it.then(|| words.nth(2).map(str::to_owned))
    });
    line??.split(':').next()?.parse().ok()
}

#[tokio::test]
async fn keep_alive_runs_on_both_sides() {
    let (listeners, addrs) = listeners(1).await;
    let table = relay_table(false, &addrs, RelayLimits::TCP, |_, _| {});
    let (proxy, _) = serve_relay(table, one_worker());
    let client = TcpStream::connect(proxy.addr).await.unwrap();
    let (endpoint, from) = listeners[0].accept().await.unwrap();
    for (ours, theirs) in [
        (proxy.addr, client.local_addr().unwrap()),
        (from, endpoint.local_addr().unwrap()),
    ] {
        let start = Instant::now();
        while timer(ours, theirs) != Some(2) {
            let timer = timer(ours, theirs);
            assert!(start.elapsed() < Duration::from_secs(10), "{timer:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(
            timer(theirs, ours),
            Some(0),
            "the other end has not asked for it"
        );
    }
}
