//! A backend as a process of its own, for tests to kill, stop and start again: `backend-process NAME ADDRESS [COMMAND]...`
//!
//! It answers every request of HTTP/1.1 with its name, says `ready` when it listens, and does what it is told, by its
//! arguments and by lines on standard input, each of which it answers with one. It ends when that input does, so none is
//! left behind.
//!
//! | command | from then on |
//! |---|---|
//! | `delay MS` | it waits so long before each answer |
//! | `status CODE [SECONDS]` | status of its answers, and `Retry-After` |
//! | `health CODE` | status of `/healthz`, which is not counted as a request |
//! | `act answer` | as usual |
//! | `act silent` | it reads requests and answers none |
//! | `act close` | it closes the connection after each answer, and says so |
//! | `act reset-head`, `act reset-body` | it resets the connection after the head of the answer, or within its body |
//! | `agent ADDRESS WORDS` | an agent at that address says these words |
//! | `counts` | nothing; its answer is what it has counted |
//!
//! A path `/sleep/MS` is answered after that time.
#![allow(
    clippy::unwrap_used,
    reason = "test code: a backend that cannot go on ends, and the test sees it"
)]

use std::io::{self, BufRead, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Answer,
    Silent,
    Close,
    ResetHead,
    ResetBody,
}

#[derive(Debug, Clone)]
struct Manner {
    delay: Duration,
    status: u16,
    retry_after: Option<u64>,
    health: u16,
    act: Act,
    agent: String,
}

struct Backend {
    name: String,
    manner: Mutex<Manner>,
    requests: AtomicU64,
    posts: AtomicU64,
    connections: AtomicU64,
    in_flight: AtomicU64,
    most_in_flight: AtomicU64,
    probes: AtomicU64,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (name, address) = (arguments.next().unwrap(), arguments.next().unwrap());
    let backend = Arc::new(Backend {
        name,
        manner: Mutex::new(Manner {
            delay: Duration::ZERO,
            status: 200,
            retry_after: None,
            health: 200,
            act: Act::Answer,
            agent: String::new(),
        }),
        requests: AtomicU64::new(0),
        posts: AtomicU64::new(0),
        connections: AtomicU64::new(0),
        in_flight: AtomicU64::new(0),
        most_in_flight: AtomicU64::new(0),
        probes: AtomicU64::new(0),
    });
    for command in arguments {
        backend.obey(&command);
    }
    let listener = TcpListener::bind(address).unwrap();
    let accepting = Arc::clone(&backend);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let backend = Arc::clone(&accepting);
            backend.connections.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || backend.serve(stream));
        }
    });
    println!("ready");
    for command in io::stdin().lock().lines().map_while(Result::ok) {
        println!("{}", backend.obey(&command));
    }
}

impl Backend {
    fn obey(self: &Arc<Self>, command: &str) -> String {
        let mut words = command.split(' ');
        let mut manner = self.manner.lock().unwrap();
        let number = |word: Option<&str>| word.unwrap().parse::<u64>().unwrap();
        match words.next().unwrap() {
            "delay" => manner.delay = Duration::from_millis(number(words.next())),
            "status" => {
                manner.status = number(words.next()) as u16;
                manner.retry_after = words.next().map(|word| number(Some(word)));
            }
            "health" => manner.health = number(words.next()) as u16,
            "act" => {
                manner.act = match words.next().unwrap() {
                    "answer" => Act::Answer,
                    "silent" => Act::Silent,
                    "close" => Act::Close,
                    "reset-head" => Act::ResetHead,
                    "reset-body" => Act::ResetBody,
                    other => panic!("{other} is no act"),
                }
            }
            "agent" => {
                let address = words.next().unwrap().to_owned();
                let says = words.collect::<Vec<_>>().join(" ");
                if std::mem::replace(&mut manner.agent, says).is_empty() {
                    let listener = TcpListener::bind(address).unwrap();
                    let backend = Arc::clone(self);
                    thread::spawn(move || backend.speak_as_agent(&listener));
                }
            }
            "counts" => return self.counts(),
            other => panic!("{other} is no command"),
        }
        "done".to_owned()
    }

    fn counts(&self) -> String {
        let all = [
            &self.requests,
            &self.posts,
            &self.connections,
            &self.in_flight,
            &self.most_in_flight,
            &self.probes,
        ];
        let all = all.map(|count| count.load(Ordering::Relaxed).to_string());
        all.join(" ")
    }

    fn speak_as_agent(&self, listener: &TcpListener) {
        for mut stream in listener.incoming().flatten() {
            let says = self.manner.lock().unwrap().agent.clone();
            let _ = writeln!(stream, "{says}");
        }
    }

    fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        // Waits for the first byte of the next request.
        while let Ok(1..) = stream.peek(&mut [0]) {
            let manner = self.manner.lock().unwrap().clone();
            let resets = matches!(manner.act, Act::ResetHead | Act::ResetBody);
            let read = match resets {
                true => Request::read_but_for_a_byte(&mut stream),
                false => Request::read(&mut stream),
            };
            let Ok(Some(request)) = read else { return };
            if request.path == "/healthz" {
                self.probes.fetch_add(1, Ordering::Relaxed);
                let answered = answer(&mut stream, manner.health, "", &self.name);
                if answered.is_err() {
                    return;
                }
                continue;
            }
            self.requests.fetch_add(1, Ordering::Relaxed);
            let is_post = request.method == "POST";
            self.posts.fetch_add(u64::from(is_post), Ordering::Relaxed);
            let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_in_flight.fetch_max(now, Ordering::Relaxed);
            let sleep = request.path.strip_prefix("/sleep/");
            let sleep = sleep.map_or(manner.delay, |millis| {
                Duration::from_millis(millis.parse().unwrap())
            });
            thread::sleep(sleep);
            // Before the answer: who has it may ask again before this thread goes on.
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            if self.reply(&mut stream, &manner).is_err() {
                return;
            }
        }
    }

    /// An error is the end of the connection.
    fn reply(&self, stream: &mut TcpStream, manner: &Manner) -> io::Result<()> {
        let retry_after = manner.retry_after;
        let mut fields = retry_after.map_or(String::new(), |seconds| {
            format!("Retry-After: {seconds}\r\n")
        });
        match manner.act {
            Act::Answer => answer(stream, manner.status, &fields, &self.name),
            Act::Silent => Ok(()),
            Act::Close => {
                fields += "Connection: close\r\n";
                answer(stream, manner.status, &fields, &self.name)?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Act::ResetHead | Act::ResetBody => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")?;
                if manner.act == Act::ResetBody {
                    stream.write_all(&[b'x'; 40])?;
                }
                // So that it arrives; the reset comes of the byte that was left unread.
                thread::sleep(Duration::from_millis(30));
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
    }
}

fn answer(stream: &mut TcpStream, status: u16, fields: &str, name: &str) -> io::Result<()> {
    let length = name.len();
    let text =
        format!("HTTP/1.1 {status} Status\r\n{fields}Content-Length: {length}\r\n\r\n{name}");
    stream.write_all(text.as_bytes())
}

struct Request {
    method: String,
    path: String,
}

impl Request {
    /// The next one, body and all; `None` at the end of the connection. Nobody sends one before the last was answered.
    fn read(stream: &mut TcpStream) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&bytes[..end]);
                if bytes.len() >= end + 4 + length(&head) {
                    return Ok(Some(Self::of(&head)));
                }
            }
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece)?;
            if count == 0 {
                return Ok(None);
            }
            bytes.extend_from_slice(&piece[..count]);
        }
    }

    /// One without a body, of which the last byte stays unread: closing the connection then resets it.
    fn read_but_for_a_byte(stream: &mut TcpStream) -> io::Result<Option<Self>> {
        let mut bytes = [0; 4096];
        loop {
            let count = stream.peek(&mut bytes)?;
            if count == 0 {
                return Ok(None);
            }
            if bytes[..count].ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut bytes[..count - 1])?;
                return Ok(Some(Self::of(&String::from_utf8_lossy(&bytes[..count]))));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn of(head: &str) -> Self {
        let mut words = head.split(' ').map(str::to_owned);
        Self {
            method: words.next().unwrap_or_default(),
            path: words.next().unwrap_or_default(),
        }
    }
}

fn length(head: &str) -> usize {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let length = fields
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .find_map(|(_, value)| value.trim().parse().ok());
    length.unwrap_or(0)
}
