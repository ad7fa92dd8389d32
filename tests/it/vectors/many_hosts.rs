//! Steps of R10: a table of many hosts answers as a naive search over the same list does, however a name is spelt.

use super::random::Random;
use super::stand::{Setup, Stand};
use test_support::raw::{self, Plan};

/// Requests sent in one go.
const BATCH: usize = 100;

/// Names that are never in the table, though near to those that are.
const STRANGERS: &[&str] = &[
    "x.h1.r10.test",
    "r10.test",
    "h.r10.test",
    "h1.r10.testing",
    "1.r10.test",
];

/// Asks for `requests` hosts, in the table and not, and compares each answer with what a naive search says.
pub(crate) async fn agrees(hosts: usize, requests: usize) -> Result<(), String> {
    const BACKENDS: [&str; 3] = ["a", "b", "c"];
    let mut random = Random::new(Random::seed(), "R10");
    let names: Vec<String> = (0..hosts).map(|n| format!("h{n}.r10.test")).collect();
    let table: Vec<(&str, &str)> = names
        .iter()
        .enumerate()
        .map(|(n, name)| (name.as_str(), BACKENDS[n % BACKENDS.len()]))
        .collect();
    let mut setup = Setup {
        ingresses: vec![("", vec![("a.test", "/", "Prefix", "a")])],
        backends: BACKENDS.to_vec(),
        certificates: Vec::new(),
    };
    // The rules of a setup live as long as the test, so these do too.
    let rules = table.iter().map(|(name, backend)| {
        let name: &'static str = Box::leak((*name).to_owned().into_boxed_str());
        let backend = BACKENDS.into_iter().find(|one| one == backend);
        (name, "/", "Prefix", backend.unwrap_or("a"))
    });
    setup.ingresses.push(("", rules.collect()));
    let stand = Stand::start(&format!("R10-{hosts}"), &setup, &[]).await;

    for _ in 0..requests.div_ceil(BATCH) {
        let asked: Vec<String> = (0..BATCH).map(|_| spelt(&mut random, hosts)).collect();
        let bytes: String = asked
            .iter()
            .map(|host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .collect();
        let mut stream = raw::connect(stand.tidegate.http).await;
        let got = raw::exchange(&mut stream, Plan::new(bytes).wanted(BATCH)).await;
        if got.answers.len() != BATCH {
            return Err(format!("{hosts} hosts: {} answers", got.answers.len()));
        }
        for (host, answer) in asked.iter().zip(&got.answers) {
            let told = (answer.status == 200).then(|| String::from_utf8_lossy(&answer.body));
            if told.as_deref() != naive(&table, host) {
                return Err(format!(
                    "{hosts} hosts: {host} got {} {told:?} instead of {:?}",
                    answer.status,
                    naive(&table, host)
                ));
            }
        }
    }
    Ok(())
}

/// One of the names or a stranger, with case, final dot and port as chance has it.
fn spelt(random: &mut Random, hosts: usize) -> String {
    let name = match random.below(4) {
        0 => STRANGERS[random.below(STRANGERS.len())].to_owned(),
        1 => format!("h{}.r10.test", hosts + random.below(hosts)),
        _ => format!("h{}.r10.test", random.below(hosts)),
    };
    let name: String = name
        .chars()
        .map(|one| match random.below(3) {
            0 => one.to_ascii_uppercase(),
            _ => one,
        })
        .collect();
    let dot = ["", "."][random.below(2)];
    let port = ["", ":", ":80", ":8443"][random.below(4)];
    format!("{name}{dot}{port}")
}

fn naive<'a>(table: &[(&str, &'a str)], host: &str) -> Option<&'a str> {
    let name = host.split(':').next().unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name);
    let found = table.iter().find(|(one, _)| one.eq_ignore_ascii_case(name));
    found.map(|(_, backend)| *backend)
}
