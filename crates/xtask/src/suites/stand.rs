//! What a suite runs against: tidegate on loopback, serving every host from one backend, with a certificate of its own.

use crate::process::output;
use anyhow::{Context, bail};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The name in the certificate.
pub(crate) const HOST: &str = "suite.test";
/// Longest time for a program to listen.
const START: Duration = Duration::from_secs(20);

/// A program that is stopped when this is dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Starts it, with its messages in a file, and waits until it listens there.
    pub(crate) fn start(
        command: &mut Command,
        log: &Path,
        listens: SocketAddr,
    ) -> anyhow::Result<Self> {
        let log = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut running = Self(child);
        let start = Instant::now();
        while TcpStream::connect(listens).is_err() {
            if let Some(status) = running.0.try_wait()? {
                bail!("{command:?} ended with {status}");
            }
            if start.elapsed() > START {
                bail!("{command:?} does not listen on {listens}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that was free just now.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on loopback")?;
    Ok(listener.local_addr()?)
}

/// The kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Ecdsa,
    Rsa,
}

impl Key {
    /// What `openssl req` makes one with.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Ecdsa => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
            Self::Rsa => &["-newkey", "rsa:2048"],
        }
    }
}

/// A certificate and its key, as files.
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    fn files(directory: &Path) -> Self {
        Self {
            certificate: directory.join("tls.crt"),
            key: directory.join("tls.key"),
        }
    }

    /// Where the authority of [`Self::issue`] has its certificate.
    pub(crate) fn authority(directory: &Path) -> PathBuf {
        directory.join("authority.crt")
    }

    /// Makes one as an authority of the public would issue it: good for 90 days, for a server, with an address of OCSP.
    pub(crate) fn issue(directory: &Path, key: Key) -> anyhow::Result<Self> {
        let made = Self::files(directory);
        let (authority, authority_key) =
            (Self::authority(directory), directory.join("authority.key"));
        let request = |subject: &str, extensions: &[&str]| {
            let mut command = Command::new("openssl");
            command
                .args(["req", "-x509", "-nodes", "-days", "90"])
                .args(key.options())
                .args(["-subj", &format!("/CN={subject}")]);
            for extension in extensions {
                command.args(["-addext", extension]);
            }
            command
        };
        let as_authority = [
            "basicConstraints=critical,CA:TRUE",
            "keyUsage=critical,keyCertSign,cRLSign",
        ];
        output(
            request("Suite authority", &as_authority)
                .arg("-keyout")
                .arg(&authority_key)
                .arg("-out")
                .arg(&authority),
        )?;
        let names = format!("subjectAltName=DNS:{HOST}");
        let ocsp = format!("authorityInfoAccess=OCSP;URI:http://ocsp.{HOST}/");
        let as_server = [
            &*names,
            &*ocsp,
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature",
            "extendedKeyUsage=serverAuth",
        ];
        output(
            request(HOST, &as_server)
                .arg("-CA")
                .arg(&authority)
                .arg("-CAkey")
                .arg(&authority_key)
                .arg("-keyout")
                .arg(&made.key)
                .arg("-out")
                .arg(&made.certificate),
        )?;
        Ok(made)
    }

    /// Makes one that issued itself.
    pub(crate) fn make(directory: &Path) -> anyhow::Result<Self> {
        let made = Self::files(directory);
        output(
            Command::new("openssl")
                .args(["req", "-x509", "-nodes", "-days", "2"])
                .args(Key::Ecdsa.options())
                .args(["-subj", &format!("/CN={HOST}")])
                .args(["-addext", &format!("subjectAltName=DNS:{HOST}")])
                .arg("-keyout")
                .arg(&made.key)
                .arg("-out")
                .arg(&made.certificate),
        )?;
        Ok(made)
    }
}

/// How the backend is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Http1,
    /// HTTP/2 by prior knowledge.
    H2c,
    /// HTTP/2 over TLS.
    H2,
}

/// A running tidegate.
pub(crate) struct Stand {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    _running: Running,
}

impl Stand {
    /// Starts it in a folder of its own, in front of a backend.
    pub(crate) fn start(
        tidegate: &Path,
        directory: &Path,
        certificate: &Certificate,
        backend: (Backend, SocketAddr),
    ) -> anyhow::Result<Self> {
        let manifests = directory.join("manifests");
        std::fs::create_dir_all(&manifests)
            .with_context(|| format!("cannot create {}", manifests.display()))?;
        let text = manifest(certificate, backend)?;
        std::fs::write(manifests.join("all.yaml"), text).context("cannot write the manifests")?;
        let (http, https, admin) = (free_address()?, free_address()?, free_address()?);
        let mut command = Command::new(tidegate);
        command
            .args(["serve", "--access-log=off"])
            .arg(format!("--manifests={}", manifests.display()))
            .arg(format!("--http-addr={http}"))
            .arg(format!("--https-addr={https}"))
            .arg(format!("--admin-addr={admin}"));
        let running = Running::start(&mut command, &directory.join("tidegate.log"), https)?;
        Ok(Self {
            http,
            https,
            _running: running,
        })
    }

    /// Whether the plain port speaks HTTP/2 to those who know it (RFC 9113 section 3.3).
    pub(crate) fn speaks_h2c(&self) -> bool {
        const SETTINGS: u8 = 4;
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(self.http)?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
            let mut head = [0; 9];
            stream.read_exact(&mut head)?;
            Ok(head[3] == SETTINGS)
        };
        ask().unwrap_or(false)
    }
}

fn manifest(
    certificate: &Certificate,
    (backend, addr): (Backend, SocketAddr),
) -> anyhow::Result<String> {
    let pem = |path: &Path| {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        anyhow::Ok(text.trim_end().replace('\n', "\n    "))
    };
    let (annotation, protocol) = match backend {
        Backend::Http1 => ("", ""),
        Backend::H2c => (
            "nginx.ingress.kubernetes.io/backend-protocol: GRPC",
            ", appProtocol: kubernetes.io/h2c",
        ),
        Backend::H2 => ("nginx.ingress.kubernetes.io/backend-protocol: GRPCS", ""),
    };
    Ok(format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: suite, annotations: {{{annotation}}}}}\nspec:\n  \
         tls: [{{hosts: [{HOST}], secretName: suite}}]\n  rules:\n  - http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: \
         {{name: suite, port: {{number: 80}}}}}}}}]}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: suite}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    {}\n  \
         tls.key: |\n    {}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: suite}}\nspec: {{ports: [{{port: 80{protocol}}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: suite, labels: {{kubernetes.io/service-name: suite}}}}\n\
         addressType: IPv4\nports: [{{port: {}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n",
        pem(&certificate.certificate)?,
        pem(&certificate.key)?,
        addr.port()
    ))
}

/// Serves HTTP/1.1 until the process ends: answers every request with 200, a body, and the fields by which a page protects itself.
pub(crate) fn serve_http1() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on loopback")?;
    let addr = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away ends its connection, and that is all.
            std::thread::spawn(move || drop(answer(stream)));
        }
    });
    Ok(addr)
}

fn answer(stream: TcpStream) -> std::io::Result<()> {
    const BODY: [u8; 1_000] = [b'x'; 1_000];
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let (mut first, mut head) = (true, false);
        let (mut length, mut chunked) = (0, false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            head |= first && line.starts_with("head ");
            first = false;
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap_or(0);
            }
            chunked |= line == "transfer-encoding: chunked";
            if line.is_empty() {
                break;
            }
        }
        skip(&mut reader, length)?;
        if chunked {
            skip_chunks(&mut reader)?;
        }
        write!(
            writer,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nstrict-transport-security: max-age=31536000\r\n\
             x-content-type-options: nosniff\r\nx-frame-options: DENY\r\n\r\n",
            BODY.len()
        )?;
        if !head {
            writer.write_all(&BODY)?;
        }
    }
}

fn skip_chunks(reader: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim_end(), 16).unwrap_or(0);
        if size == 0 {
            // Trailers, and the empty line behind them.
            while reader.read_line(&mut line)? > 2 {}
            return Ok(());
        }
        skip(reader, size + 2)?;
    }
}

fn skip(reader: &mut impl Read, length: u64) -> std::io::Result<()> {
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).map(drop)
}
