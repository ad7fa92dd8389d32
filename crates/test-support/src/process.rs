//! Runs the real `tidegate` binary.

use crate::client::get;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// The binary: `TIDEGATE_BIN`, or the one built beside the running test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TIDEGATE_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("tidegate");
    assert!(
        path.exists(),
        "{} is not there: run `cargo build -p tidegate` first, or set TIDEGATE_BIN",
        path.display()
    );
    path
}

/// Whether the binary was built with optimisation, as far as its path tells. One that was not is some ten times slower.
pub fn is_release() -> bool {
    binary().iter().any(|part| part == "release")
}

/// A port that was free just now.
pub fn free_port() -> u16 {
    // Below those that Linux gives to clients: of these another test might take one before it is listened on.
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = std::process::id() as u16;
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        // Processes that follow each other begin far from each other.
        let port = FIRST + begin.wrapping_mul(97).wrapping_add(next) % COUNT;
        let both = [
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok(),
            UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok(),
        ];
        if both == [true, true] {
            return port;
        }
    }
    panic!("no port is free");
}

/// What a tidegate is started in, apart from its arguments.
#[derive(Debug, Default, Clone)]
pub struct Surroundings {
    /// Most file descriptors; default: as many as this process may have.
    pub descriptors: Option<u64>,
    /// Standard output is a pipe that nobody reads; default: it goes nowhere.
    pub unread_stdout: bool,
    /// Variables of the environment, by name.
    pub variables: Vec<(String, String)>,
}

/// A running tidegate. Dropping it kills it.
pub struct Tidegate {
    child: Child,
    /// Where it serves plain HTTP.
    pub http: SocketAddr,
    /// Where it serves HTTPS.
    pub https: SocketAddr,
    /// Its admin port.
    pub admin: SocketAddr,
    /// Where its standard error goes.
    pub log: PathBuf,
}

impl Tidegate {
    /// Starts it on loopback with these arguments; addresses are added. Does not wait.
    pub fn start(name: &str, args: &[&str]) -> Self {
        Self::start_at(name, Ipv4Addr::LOCALHOST, args)
    }

    /// As [`Tidegate::start`], serving at this address.
    pub fn start_at(name: &str, ip: impl Into<IpAddr>, args: &[&str]) -> Self {
        Self::start_in(name, ip, args, Surroundings::default())
    }

    /// As [`Tidegate::start_at`], in these surroundings.
    pub fn start_in(
        name: &str,
        ip: impl Into<IpAddr>,
        args: &[&str],
        surroundings: Surroundings,
    ) -> Self {
        let ip = ip.into();
        let addr = |port: u16| SocketAddr::from((ip, port));
        let (http, https, admin) = (addr(free_port()), addr(free_port()), addr(free_port()));
        let log = std::env::temp_dir().join(format!("tidegate-{}-{name}.log", std::process::id()));
        let mut command = match surroundings.descriptors {
            None => Command::new(binary()),
            Some(most) => {
                // The shell becomes the binary, so the process id is that of the binary.
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(r#"ulimit -n "$0" && exec "$@""#);
                shell.arg(most.to_string()).arg(binary());
                shell
            }
        };
        let stdout = match surroundings.unread_stdout {
            true => Stdio::piped(),
            false => Stdio::null(),
        };
        // A flag that has no effect is refused.
        let begins = |flag: &str| args.iter().any(|arg| arg.starts_with(flag));
        let by_objects = begins("--manifests") || begins("controller");
        let child = command
            .args(args)
            .envs(surroundings.variables)
            .args((!begins("--config")).then(|| format!("--http-addr={http}")))
            .args(by_objects.then(|| format!("--https-addr={https}")))
            .arg(format!("--admin-addr={admin}"))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .expect("tidegate starts");
        Self {
            child,
            http,
            https,
            admin,
            log,
        }
    }

    /// Waits until it is ready; panics with its log after 30 s.
    pub async fn ready(mut self) -> Self {
        let start = Instant::now();
        loop {
            if get(self.admin, "admin", "/readyz")
                .await
                .is_ok_and(|answer| answer.status == 200)
            {
                return self;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < Duration::from_secs(30),
                "not ready ({ended:?}):\n{}",
                self.logged()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        // The state stands behind the name, which may have any character but a closing parenthesis after its last.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        stat.is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or("Z").starts_with('Z'))
    }

    /// How many file descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// Its resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        number.unwrap_or(0) * 1024
    }

    /// Processor time it has used, in steps of 10 ms.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let stat = stat.unwrap_or_default();
        let rest = stat.rsplit(") ").next().unwrap_or_default();
        // `utime` and `stime` of proc(5), in ticks of which every Linux we know has 100 a second.
        let ticks = rest.split(' ').skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Duration::from_millis(10 * ticks)
    }

    /// What it wrote to standard error.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until something stands in its log, and gives the whole of it. The log is written by a thread of its own, so what
    /// was done may be seen before it can be read that it was.
    ///
    /// # Panics
    /// After 20 s.
    pub async fn until_logged(&self, said: &str) -> String {
        let start = Instant::now();
        loop {
            let logged = self.logged();
            if logged.contains(said) {
                return logged;
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{said:?} is not in\n{logged}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// One metric, summed over its series; 0 if there is none.
    pub async fn metric(&self, name: &str) -> f64 {
        self.metric_of(name, "").await
    }

    /// As [`Tidegate::metric`], of the series with this label, as it stands in the text.
    pub async fn metric_of(&self, name: &str, label: &str) -> f64 {
        let text = get(self.admin, "admin", "/metrics").await.unwrap().text();
        let series = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
        });
        series
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        let status = kill.arg(signal).arg(self.pid().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end; panics after `most`.
    pub async fn wait(&mut self, most: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                start.elapsed() < most,
                "still running after {most:?}:\n{}",
                self.logged()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Tidegate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
