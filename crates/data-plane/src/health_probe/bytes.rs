//! A probe of bytes: some are sent, and something is expected of the answer.

use super::ask::Answer;
use routing_table::policy::{Expected, Pattern};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UdpSocket;

/// As much of an answer an expression is tried on.
const MOST: usize = 4096;

/// Reads no more than it takes.
pub(super) async fn ask(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    send: &[u8],
    expect: &Expected,
) -> Answer {
    let failed = |error: std::io::Error| error.to_string();
    io.write_all(send).await.map_err(failed)?;
    io.flush().await.map_err(failed)?;
    match expect {
        Expected::Start(expect) => begins(io, expect).await,
        Expected::Pattern(pattern) => fits(io, pattern).await,
    }
}

async fn begins(mut io: impl AsyncRead + Unpin, expect: &[u8]) -> Answer {
    let mut rest = expect;
    let mut buffer = [0; 1024];
    while !rest.is_empty() {
        let most = rest.len().min(buffer.len());
        let read = io.read(&mut buffer[..most]).await;
        let count = read.map_err(|error| error.to_string())?;
        let place = expect.len() - rest.len();
        if count == 0 {
            return Err(format!("the answer ends after {place} bytes"));
        }
        if buffer[..count] != rest[..count] {
            return Err(format!("the answer is another one, after {place} bytes"));
        }
        rest = &rest[count..];
    }
    Ok(AS_IT_SHOULD.to_owned())
}

const AS_IT_SHOULD: &str = "the answer begins as it should";

async fn fits(mut io: impl AsyncRead + Unpin, pattern: &Pattern) -> Answer {
    let mut seen = Vec::with_capacity(MOST);
    while !pattern.fits(&seen) {
        if seen.len() == MOST {
            return Err(format!("the first {MOST} bytes of the answer do not fit"));
        }
        let mut rest = (&mut io).take((MOST - seen.len()) as u64);
        let read = rest.read_buf(&mut seen).await;
        if read.map_err(|error| error.to_string())? == 0 {
            return Err(format!("the answer of {} bytes does not fit", seen.len()));
        }
    }
    Ok("the answer fits".to_owned())
}

/// Sends a datagram; the next one that comes from there is the answer.
pub(super) async fn ask_udp(addr: SocketAddr, send: &[u8], expect: &Expected) -> Answer {
    let failed = |error: std::io::Error| error.to_string();
    let any = match addr {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
    socket.connect(addr).await.map_err(failed)?;
    socket.send(send).await.map_err(failed)?;
    // What does not fit is cut off, and was not looked at anyway.
    let mut buffer = vec![0; MOST];
    let count = socket.recv(&mut buffer).await.map_err(failed)?;
    let good = match expect {
        Expected::Start(start) => buffer[..count].starts_with(start),
        Expected::Pattern(pattern) => pattern.fits(&buffer[..count]),
    };
    match good {
        true => Ok(format!("answered with {count} bytes")),
        false => Err(format!("the answer of {count} bytes is another one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &'static [u8], expect: &[u8]) -> Answer {
        told(answer, &Expected::Start(expect.into())).await
    }

    async fn told(answer: &'static [u8], expect: &Expected) -> Answer {
        let (ours, mut theirs) = tokio::io::duplex(2 * MOST);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let answer = ask(ours, b"PING\r\n", expect).await;
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"PING\r\n");
        answer
    }

    #[tokio::test]
    async fn the_beginning_of_the_answer_decides() {
        assert!(answered(b"+PONG\r\nand more", b"+PONG").await.is_ok());
        assert!(answered(b"", b"").await.is_ok());
        for bad in [&b""[..], b"+PON", b"-ERR down", b" +PONG"] {
            assert!(answered(bad, b"+PONG").await.is_err(), "{bad:?}");
        }
        let long: &'static [u8] = vec![b'x'; 3000].leak();
        assert!(answered(long, long).await.is_ok());
        assert!(answered(&long[..2999], long).await.is_err());
    }

    #[tokio::test]
    async fn an_answer_may_have_to_fit_an_expression() {
        let fits = Expected::Pattern(Pattern::new("role:(master|slave)").unwrap());
        for good in [&b"role:slave"[..], b"# Replication\r\nrole:master\r\nmore"] {
            assert!(told(good, &fits).await.is_ok(), "{good:?}");
        }
        for bad in [&b""[..], b"role:", b"role:other\r\n"] {
            assert!(told(bad, &fits).await.is_err(), "{bad:?}");
        }
        // It is looked for in the beginning only.
        let mut late = vec![b' '; MOST - 5];
        late.extend_from_slice(b"role:slave");
        let reason = told(late.leak(), &fits).await.unwrap_err();
        assert_eq!(reason, "the first 4096 bytes of the answer do not fit");
    }
}
