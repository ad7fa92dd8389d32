//! A probe of bytes: some are sent, and the answer begins with others.

use super::ask::Answer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Reads as many bytes as are expected at most.
pub(super) async fn ask(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    send: &[u8],
    expect: &[u8],
) -> Answer {
    let failed = |error: std::io::Error| error.to_string();
    io.write_all(send).await.map_err(failed)?;
    io.flush().await.map_err(failed)?;
    let mut rest = expect;
    let mut buffer = [0; 1024];
    while !rest.is_empty() {
        let most = rest.len().min(buffer.len());
        let count = io.read(&mut buffer[..most]).await.map_err(failed)?;
        let place = expect.len() - rest.len();
        if count == 0 {
            return Err(format!("the answer ends after {place} bytes"));
        }
        if buffer[..count] != rest[..count] {
            return Err(format!("the answer is another one, after {place} bytes"));
        }
        rest = &rest[count..];
    }
    Ok("the answer begins as it should".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &'static [u8], expect: &[u8]) -> Answer {
        let (ours, mut theirs) = tokio::io::duplex(4096);
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
}
