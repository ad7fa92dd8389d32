//! A probe by `grpc.health.v1.Health/Check`. Its two messages have a field each, so they are written and read by hand.

use super::ask::Answer;
use super::http2::{self, Answered};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version, header};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};

/// Most bytes of an answer: a frame with one small message.
const MOST_ANSWER: usize = 4096;
/// Length of what stands before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// What `SERVING` is written as.
const SERVING: u64 = 1;

pub(super) async fn ask(
    io: impl AsyncRead + AsyncWrite + Unpin,
    service: &str,
    addr: SocketAddr,
    scheme: &str,
) -> Answer {
    let request = Request::builder()
        .method("POST")
        .version(Version::HTTP_2)
        .uri(format!("{scheme}://{addr}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "tidegate-probe")
        .body(Bytes::from(question(service)));
    let request = request.map_err(|error| format!("it cannot be asked: {error}"))?;
    judge(&http2::ask(io, request, MOST_ANSWER).await?)
}

fn judge(answered: &Answered) -> Answer {
    if answered.status != StatusCode::OK {
        return Err(format!("status {}", answered.status.as_u16()));
    }
    let status = |fields: &HeaderMap| {
        let text = fields.get("grpc-status")?.to_str().ok()?;
        text.parse::<u32>().ok()
    };
    // Without an answer it stands in the head.
    match status(&answered.trailers).or_else(|| status(&answered.headers)) {
        Some(0) => {}
        Some(status) => return Err(format!("gRPC status {status}")),
        None => return Err("an answer without a gRPC status".to_owned()),
    }
    match serving_status(&answered.body) {
        Some(SERVING) => Ok("serving".to_owned()),
        Some(2) => Err("not serving".to_owned()),
        Some(3) => Err("service unknown".to_owned()),
        Some(other) => Err(format!("serving status {other}")),
        None => Err("an answer that cannot be read".to_owned()),
    }
}

/// A `HealthCheckRequest` in its frame.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, a string.
        message.push(1 << 3 | 2);
        write_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

/// The status in a framed `HealthCheckResponse`; 0, which is not written, is unknown.
pub(super) fn serving_status(frame: &[u8]) -> Option<u64> {
    let (prefix, message) = frame.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || usize::try_from(length) != Ok(message.len()) {
        return None;
    }
    let (mut status, mut rest) = (0, message);
    while !rest.is_empty() {
        let (key, after) = read_varint(rest)?;
        rest = match key & 7 {
            0 => {
                let (value, after) = read_varint(after)?;
                if key >> 3 == 1 {
                    status = value;
                }
                after
            }
            1 => after.get(8..)?,
            2 => {
                let (length, after) = read_varint(after)?;
                after.get(usize::try_from(length).ok()?..)?
            }
            5 => after.get(4..)?,
            _ => return None,
        };
    }
    Some(status)
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[place + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_framed() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("a.B"), b"\x00\x00\x00\x00\x05\x0a\x03a.B");
        let long = "x".repeat(300);
        assert_eq!(question(&long)[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
    }

    #[test]
    fn answers_are_read() {
        for (frame, expected) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], Some(1)),
            (b"\0\0\0\0\x02\x08\x02", Some(2)),
            (b"\0\0\0\0\0", Some(0)),
            // Fields that we do not know, before and after.
            (b"\0\0\0\0\x08\x12\x02ab\x08\x01\x18\x05", Some(1)),
            (b"\0\0\0\0\x0b\x11ABCDEFGH\x08\x01", Some(1)),
            (b"\0\0\0\0\x07\x15ABCD\x08\x01", Some(1)),
            // Compressed, cut off, longer than it says, of a kind there is not.
            (b"\x01\0\0\0\x02\x08\x01", None),
            (b"\0\0\0\0\x02\x08", None),
            (b"\0\0\0\0\x01\x08", None),
            (b"\0\0\0\0\x02\x08\x01\0", None),
            (b"\0\0\0\0\x02\x0c\x01", None),
            (b"\0\0\0\0\x03\x12\xff\x01", None),
            (b"\0\0\0", None),
            (b"", None),
        ] {
            assert_eq!(serving_status(frame), expected, "{frame:?}");
        }
        let endless = [&b"\0\0\0\0\x0c\x08"[..], &[0xff; 11]].concat();
        assert_eq!(serving_status(&endless), None);
    }

    #[test]
    fn the_status_of_the_call_counts_too() {
        let answered = |status: Option<&'static str>, body: &[u8]| {
            let mut trailers = HeaderMap::new();
            if let Some(status) = status {
                trailers.insert("grpc-status", status.parse().unwrap());
            }
            judge(&Answered {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: body.to_vec(),
                trailers,
            })
        };
        let serving = b"\0\0\0\0\x02\x08\x01";
        assert_eq!(answered(Some("0"), serving).unwrap(), "serving");
        assert_eq!(answered(Some("12"), serving).unwrap_err(), "gRPC status 12");
        assert!(answered(None, serving).is_err());
        assert!(answered(Some("x"), serving).is_err());
        assert!(answered(Some("0"), b"\0\0\0\0\x02\x08\x02").is_err());
    }
}
