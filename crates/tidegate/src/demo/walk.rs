//! What `tidegate demo` shows of itself at the start: it asks, and prints who answered.

use super::Backend;
use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Nothing of it takes longer than some milliseconds.
const ONE_ANSWER: Duration = Duration::from_secs(10);

const SHOP: &str = "shop.localhost";

/// Where it asks, and whom it believes.
pub(super) struct Walk {
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    /// PEM of the certificate of [`SHOP`].
    pub(super) certificate: String,
}

/// A status, and the name of the backend where one answered.
type Answer = (StatusCode, Option<String>);

impl Walk {
    /// Asks for one thing after the other; `killed` goes and comes back in between. Gives what to print.
    ///
    /// # Errors
    /// When something of it cannot be tried at all.
    pub(super) async fn run(&self, killed: &mut Backend) -> anyhow::Result<String> {
        let name = killed.name;
        let mut out = String::from("Tried just now:\n\n");
        let mut say = |what: &str, came: String| out.push_str(&format!("  {what:<46} {came}\n"));
        say(
            &format!("10 requests of {SHOP}, one by one"),
            self.in_turn(10).await?,
        );
        let all: Vec<_> = (0..10).map(|_| self.plain(SHOP, "/")).collect();
        let all = futures_util::future::try_join_all(all).await?;
        say("10 more, all at once", shares(all));
        let cart = self.plain(SHOP, "/cart/7").await?;
        say(&format!("{SHOP}/cart/7: the longer path"), shares([cart]));
        let secure = self.secure().await?;
        say(
            "the same host by TLS, its certificate checked",
            shares([secure]),
        );
        let unknown = self.plain("unknown.localhost", "/").await?;
        say("unknown.localhost: no route", shares([unknown]));
        killed.kill().await;
        say(
            &format!("{name} is killed, 20 requests"),
            self.in_turn(20).await?,
        );
        killed.start().await?;
        self.until_asked_again(name).await?;
        say(
            &format!("{name} is back, 10 requests a second later"),
            self.in_turn(10).await?,
        );
        out.push('\n');
        Ok(out)
    }

    /// Who could not be connected to is passed over for a second.
    async fn until_asked_again(&self, name: &str) -> anyhow::Result<()> {
        let asked = async {
            while self.plain(SHOP, "/").await?.1.as_deref() != Some(name) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        let asked = tokio::time::timeout(ONE_ANSWER, asked).await;
        asked.with_context(|| format!("{name} is not asked again"))?
    }

    async fn in_turn(&self, requests: usize) -> anyhow::Result<String> {
        let mut all = Vec::new();
        for _ in 0..requests {
            all.push(self.plain(SHOP, "/").await?);
        }
        Ok(shares(all))
    }

    async fn plain(&self, host: &str, path: &str) -> anyhow::Result<Answer> {
        ask(TcpStream::connect(self.http).await?, host, path).await
    }

    async fn secure(&self) -> anyhow::Result<Answer> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes())?)?;
        let config = ClientConfig::builder().with_root_certificates(roots);
        let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
        let stream = TcpStream::connect(self.https).await?;
        let stream = connector
            .connect(ServerName::try_from(SHOP)?, stream)
            .await?;
        ask(stream, SHOP, "/").await
    }
}

/// GETs on a connection of its own.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
) -> anyhow::Result<Answer> {
    let asked = async {
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path).header("host", host);
        let request = request.body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        let line = text.lines().next().unwrap_or_default();
        let name = line.strip_prefix("I am ").map(str::to_owned);
        Ok((status, name))
    };
    let answered = tokio::time::timeout(ONE_ANSWER, asked).await;
    answered.context("no answer in ten seconds")?
}

/// Who answered how often; a status where nobody did.
fn shares(all: impl IntoIterator<Item = Answer>) -> String {
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for (status, name) in all {
        let shown = match (name, status) {
            (Some(name), StatusCode::OK) => name,
            (_, status) => status.to_string(),
        };
        *shares.entry(shown).or_default() += 1;
    }
    let each = shares.iter().map(|(name, count)| match count {
        1 => name.clone(),
        count => format!("{name} {count}"),
    });
    each.collect::<Vec<_>>().join(", ")
}
