//! One request on an HTTP/2 connection of its own, which ends with it.

use bytes::Bytes;
use h2::client::Builder;
use http::{HeaderMap, Request, StatusCode};
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncWrite};

/// Largest head of an answer in bytes.
const MOST_HEAD: u32 = 16 * 1024;
/// Bytes that may be sent ahead of us.
const WINDOW: u32 = 64 * 1024;

/// An answer as far as it was read.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Empty where the body was not read.
    pub(super) body: Vec<u8>,
    pub(super) trailers: HeaderMap,
}

/// Sends a request and reads its answer: the body up to so many bytes, or not at all.
pub(super) async fn ask(
    io: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Bytes>,
    most_body: usize,
) -> Result<Answered, String> {
    let (mut sender, connection) = Builder::new()
        .enable_push(false)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(MOST_HEAD)
        .handshake::<_, Bytes>(io)
        .await
        .map_err(text)?;
    let exchange = async move {
        std::future::poll_fn(|cx| sender.poll_ready(cx))
            .await
            .map_err(text)?;
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, ());
        let (answer, mut upload) = sender
            .send_request(request, body.is_empty())
            .map_err(text)?;
        if !body.is_empty() {
            upload.send_data(body, true).map_err(text)?;
        }
        let (head, mut stream) = answer.await.map_err(text)?.into_parts();
        let mut answered = Answered {
            status: head.status,
            headers: head.headers,
            body: Vec::new(),
            trailers: HeaderMap::new(),
        };
        if most_body == 0 {
            return Ok(answered);
        }
        while let Some(piece) = stream.data().await {
            let piece = piece.map_err(text)?;
            if answered.body.len() + piece.len() > most_body {
                return Err(format!("an answer of more than {most_body} bytes"));
            }
            answered.body.extend_from_slice(&piece);
            let _ = stream.flow_control().release_capacity(piece.len());
        }
        if let Some(trailers) = stream.trailers().await.map_err(text)? {
            answered.trailers = trailers;
        }
        Ok(answered)
    };
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        biased;
        answered = exchange.as_mut() => answered,
        // What has come before the end of the connection is there.
        _ = connection.as_mut() => exchange.await,
    }
}

fn text(error: h2::Error) -> String {
    format!("HTTP/2: {error}")
}
