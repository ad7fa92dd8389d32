//! A name server that answers as it is told, well or badly, by UDP and TCP on one port.

use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

/// Answers to one question.
#[derive(Debug, Clone)]
pub enum Reply {
    /// These records, and additional ones.
    Records(Vec<Record>, Vec<Record>),
    /// An answer without records, with this code.
    Code(ResponseCode),
    /// Nothing.
    Silence,
    /// By UDP only that it was cut, by TCP the rest.
    Cut(Box<Reply>),
    /// The same, and TCP connections end at once.
    CutWithoutTcp,
    /// The right answer with another identity.
    WrongId(Box<Reply>),
    /// The right answer to another question.
    WrongQuestion(Box<Reply>),
    /// These bytes behind the identity.
    Bytes(Vec<u8>),
    /// What it says, after so long.
    Late(Duration, Box<Reply>),
}

/// A running name server. Dropped, it is gone.
#[derive(Debug)]
pub struct NameServer {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Shared {
    replies: Mutex<BTreeMap<(String, RecordType), Reply>>,
    queries: AtomicU64,
    asked: Mutex<BTreeMap<RecordType, u64>>,
    tcp: AtomicU64,
    open: AtomicU64,
    most: AtomicU64,
}

/// An SRV record with a TTL of a second.
pub fn srv(name: &str, priority: u16, weight: u16, port: u16, target: &str) -> Record {
    let srv = SRV::new(priority, weight, port, self::name(target));
    Record::from_rdata(self::name(name), 1, RData::SRV(srv))
}

/// An address record with a TTL of a second.
pub fn address(name: &str, ip: &str) -> Record {
    let data = match ip.parse().expect("an address") {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Record::from_rdata(self::name(name), 1, data)
}

/// An alias.
pub fn alias(name: &str, target: &str) -> Record {
    Record::from_rdata(self::name(name), 1, RData::CNAME(CNAME(self::name(target))))
}

fn name(text: &str) -> Name {
    let mut name = Name::from_utf8(text).expect("a name");
    name.set_fqdn(true);
    name
}

impl NameServer {
    /// A name server that knows nothing (`NXDOMAIN`).
    pub async fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            let addr = udp.local_addr().expect("it is bound");
            // Another program may have the port for TCP.
            if let Ok(tcp) = TcpListener::bind(addr).await {
                break (udp, tcp);
            }
        };
        let addr = udp.local_addr().expect("it is bound");
        let (shared, stop) = (Arc::<Shared>::default(), CancellationToken::new());
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(serve_udp(Arc::new(udp), Arc::clone(&shared))),
        );
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(serve_tcp(tcp, Arc::clone(&shared))),
        );
        Self { addr, shared, stop }
    }

    /// Says what to answer when a name is asked for this type.
    pub fn answer(&self, name: &str, kind: RecordType, reply: Reply) {
        let key = (self::name(name).to_lowercase().to_ascii(), kind);
        self.shared.replies().insert(key, reply);
    }

    /// Answers with these records.
    pub fn records(&self, name: &str, kind: RecordType, records: Vec<Record>) {
        self.answer(name, kind, Reply::Records(records, Vec::new()));
    }

    /// Questions so far.
    pub fn queries(&self) -> u64 {
        self.shared.queries.load(Ordering::Relaxed)
    }

    /// Questions so far for anything but this type.
    pub fn other_queries(&self, kind: RecordType) -> u64 {
        let asked = self
            .shared
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        asked
            .iter()
            .filter(|(of, _)| **of != kind)
            .map(|(_, count)| count)
            .sum()
    }

    /// Questions by TCP so far.
    pub fn tcp_queries(&self) -> u64 {
        self.shared.tcp.load(Ordering::Relaxed)
    }

    /// The most questions that waited for an answer at one time.
    pub fn most_at_once(&self) -> u64 {
        self.shared.most.load(Ordering::Relaxed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn replies(&self) -> MutexGuard<'_, BTreeMap<(String, RecordType), Reply>> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, kind: RecordType) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked.entry(kind).or_default() += 1;
    }

    /// The bytes of the answer, or that the connection ends.
    async fn reply(&self, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let message = Message::from_vec(question).ok()?;
        let query = message.queries.first()?.clone();
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.count(query.query_type());
        self.tcp.fetch_add(u64::from(tcp), Ordering::Relaxed);
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(open, Ordering::Relaxed);
        let key = (query.name().to_lowercase().to_ascii(), query.query_type());
        let known = self.replies().get(&key).cloned();
        let mut reply = known.unwrap_or(Reply::Code(ResponseCode::NXDomain));
        if let Reply::Late(time, later) = reply {
            tokio::time::sleep(time).await;
            reply = *later;
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        encode(&message, query, reply, tcp)
    }
}

fn encode(question: &Message, query: Query, reply: Reply, tcp: bool) -> Option<Vec<u8>> {
    let mut answer = Message::new(question.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    answer.metadata.authoritative = true;
    answer.add_query(query.clone());
    match reply {
        Reply::Records(records, additionals) => {
            answer.add_answers(records);
            answer.add_additionals(additionals);
        }
        Reply::Code(code) => {
            answer.metadata.response_code = code;
            if matches!(code, ResponseCode::NXDomain | ResponseCode::NoError) {
                // RFC 2308: who knows says so with the SOA.
                let (owner, root) = (name("test"), name("."));
                let soa = SOA::new(root.clone(), root, 1, 60, 60, 60, 1);
                answer.add_authorities([Record::from_rdata(owner, 1, RData::SOA(soa))]);
            }
        }
        Reply::Silence | Reply::Late(..) => return None,
        Reply::CutWithoutTcp if tcp => return None,
        Reply::Cut(whole) if tcp => return encode(question, query, *whole, tcp),
        Reply::Cut(_) | Reply::CutWithoutTcp => answer.metadata.truncation = true,
        Reply::WrongId(right) => {
            let mut bytes = encode(question, query, *right, tcp)?;
            bytes[0] ^= 0xff;
            return Some(bytes);
        }
        Reply::WrongQuestion(right) => {
            let mut other = query;
            other.set_name(name("other.test"));
            return encode(question, other, *right, tcp);
        }
        Reply::Bytes(bytes) => {
            let mut all = question.id.to_be_bytes().to_vec();
            all.extend(bytes);
            return Some(all);
        }
    }
    answer.to_vec().ok()
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let (socket, shared, question) = (
            Arc::clone(&socket),
            Arc::clone(&shared),
            buffer[..length].to_vec(),
        );
        tokio::spawn(async move {
            if let Some(answer) = shared.reply(&question, false).await {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut question = vec![0; length.into()];
                if stream.read_exact(&mut question).await.is_err() {
                    return;
                }
                let Some(answer) = shared.reply(&question, true).await else {
                    return;
                };
                let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
                let sent = stream.write_u16(length).await;
                if sent.is_err() || stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        });
    }
}
