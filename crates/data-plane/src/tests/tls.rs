//! TLS over real sockets: certificates by name, client certificates, requests that came to the wrong connection.

use super::{Proxy, Rule, host, serve_table, table_on};
use crate::Settings;
use routing_table::{
    Authorities, Certificate, CertificateDemand, ClientCertificates, HostMatch, ListenerProtocol,
    SniIndex, TlsSettings, Update,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateRevocationListDer, PrivateKeyDer};
use std::sync::Arc;
use test_support::{Answer, Authority, Backend, Client, Issued, TlsClient};

/// A certificate of the table.
pub(crate) fn certificate(issued: &Issued) -> Arc<Certificate> {
    Arc::new(Certificate {
        source: "Secret test/tls".into(),
        chain: issued.chain.clone(),
        key: PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap(),
        ocsp: None,
        not_after: i64::MAX,
    })
}

/// A TLS listener with these certificates, each for the hosts beside it.
pub(crate) fn tls_table(certificates: &[(&[&str], &Arc<Certificate>)], rules: &[Rule]) -> Update {
    let mut index = SniIndex::default();
    for (hosts, certificate) in certificates {
        for host in *hosts {
            index.add(&HostMatch::parse(host).unwrap(), certificate);
        }
    }
    let settings = TlsSettings {
        certificates: index,
        default_certificate: None,
        ..TlsSettings::default()
    };
    table_on("https", ListenerProtocol::Https(Arc::new(settings)), rules)
}

pub(crate) fn serve_tls(table: Update) -> Proxy {
    let settings = Settings {
        workers: 1,
        ..Settings::default()
    };
    serve_table(table, settings)
}

/// A demand that these authorities meet.
pub(crate) fn demand(kind: CertificateDemand, authority: &Authority) -> ClientCertificates {
    ClientCertificates {
        authorities: authorities(&[authority], vec![]),
        demand: kind,
        depth: 1,
        pass_certificate: false,
    }
}

pub(crate) fn authorities(
    all: &[&Authority],
    revoked: Vec<CertificateRevocationListDer<'static>>,
) -> Arc<Authorities> {
    Arc::new(Authorities {
        source: "Secret test/ca".into(),
        certificates: all.iter().map(|authority| authority.der.clone()).collect(),
        revoked,
    })
}

fn demanding(mut rule: Rule, demand: &ClientCertificates) -> Rule {
    rule.client_certificates = Some(Arc::new(demand.clone()));
    rule
}

async fn get(proxy: &Proxy, client: &TlsClient, name: &str, host: &str) -> Result<Answer, String> {
    let stream = client.connect(proxy.addr, name).await;
    let stream = stream.map_err(|error| error.to_string())?;
    Client::over(stream).await?.get(host, "/").await
}

/// The status, or 0 when there was none because the connection failed.
async fn status(proxy: &Proxy, client: &TlsClient, name: &str, host: &str) -> u16 {
    get(proxy, client, name, host)
        .await
        .map_or(0, |answer| answer.status.as_u16())
}

#[tokio::test]
async fn what_each_demand_makes_of_each_certificate() {
    use CertificateDemand::{Optional, OptionalFromAnyone, Required};
    let backend = Backend::start("a").await;
    let server = Authority::new("servers");
    let (ours, other) = (Authority::new("clients"), Authority::new("strangers"));
    let middle = ours.below("middle");
    let lower = middle.below("lower");
    let certificate = certificate(&server.server(&["a.test"]));
    let revoked = ours.client("revoked");
    let list = ours.revocation_list(&[&revoked]);
    let clients = [
        ("none", None),
        ("valid", Some(ours.client("carol"))),
        (
            "behind one",
            Some(middle.client("dave").through(&[&middle])),
        ),
        (
            "behind two",
            Some(lower.client("erin").through(&[&lower, &middle])),
        ),
        ("unsent issuer", Some(middle.client("frank"))),
        ("stranger", Some(other.client("mallory"))),
        ("expired", Some(ours.expired_client("old"))),
        ("revoked", Some(revoked)),
        ("a server's", Some(ours.server(&["x.test"]))),
        ("11 long", Some(ours.client("long").through(&[&middle; 10]))),
        (
            "10 long",
            Some(ours.client("shorter").through(&[&middle; 9])),
        ),
        ("16 KiB", Some(ours.bulky_client("bulky", 16 * 1024))),
    ];
    // 0: the handshake fails.
    let expected: [(&str, [u16; 3]); 12] = [
        ("none", [400, 200, 200]),
        ("valid", [200, 200, 200]),
        ("behind one", [200, 200, 200]),
        ("behind two", [400, 400, 400]),
        ("unsent issuer", [400, 400, 200]),
        ("stranger", [400, 400, 200]),
        ("expired", [400, 400, 400]),
        ("revoked", [400, 400, 400]),
        ("a server's", [400, 400, 400]),
        ("11 long", [0, 0, 0]),
        ("10 long", [200, 200, 200]),
        ("16 KiB", [200, 200, 200]),
    ];
    for (position, kind) in [Required, Optional, OptionalFromAnyone]
        .into_iter()
        .enumerate()
    {
        for ((name, identity), (same, statuses)) in clients.iter().zip(expected) {
            assert_eq!(*name, same);
            let mut demand = demand(kind, &ours);
            if *name == "revoked" {
                let der = CertificateRevocationListDer::from_pem_slice(list.as_bytes()).unwrap();
                demand.authorities = authorities(&[&ours], vec![der]);
            }
            let rules = [demanding(host("a.test", &[backend.addr]), &demand)];
            let proxy = serve_tls(tls_table(&[(&["a.test"], &certificate)], &rules));
            for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
                let client = TlsClient::with_versions(identity.as_ref(), &[version]);
                let (wanted, before) = (statuses[position], backend.requests());
                let got = status(&proxy, &client, "a.test", "a.test").await;
                assert_eq!(got, wanted, "{kind}, {name}, {version:?}");
                let passed = backend.requests() - before;
                assert_eq!(passed, u64::from(wanted == 200), "{kind}, {name}");
            }
        }
    }
}

#[tokio::test]
async fn the_upstream_is_told_and_the_client_cannot_lie() {
    let backend = Backend::start("a").await;
    let authority = Authority::new("clients");
    let server = certificate(&Authority::new("servers").server(&["a.test", "open.test"]));
    let mut wanted = demand(CertificateDemand::Optional, &authority);
    wanted.pass_certificate = true;
    let rules = [
        demanding(host("a.test", &[backend.addr]), &wanted),
        host("open.test", &[backend.addr]),
    ];
    for trusted in [false, true] {
        let table = tls_table(&[(&["a.test", "open.test"], &server)], &rules);
        let trusted_proxies = if trusted {
            vec!["127.0.0.0/8".parse().unwrap()]
        } else {
            vec![]
        };
        let proxy = serve_table(
            table,
            Settings {
                trusted_proxies,
                ..Settings::default()
            },
        );
        let carol = authority.client("carol");
        for (identity, name, verify, subject, passes) in [
            (
                Some(&carol),
                "a.test",
                vec!["SUCCESS"],
                Some(r"CN=carol,O=Shop\, Inc.,C=DE"),
                true,
            ),
            (None, "a.test", vec!["NONE"], None, false),
            (
                None,
                "open.test",
                if trusted { vec!["LIE"] } else { vec![] },
                trusted.then_some("LIE"),
                false,
            ),
        ] {
            let stream = TlsClient::new(identity)
                .connect(proxy.addr, name)
                .await
                .unwrap();
            let mut request =
                test_support::client::request(http::Method::GET, name, "/", bytes::Bytes::new());
            for field in [
                "ssl-client-verify",
                "ssl-client-subject-dn",
                "ssl_client_verify",
            ] {
                request.headers_mut().insert(
                    http::HeaderName::from_static(field),
                    http::HeaderValue::from_static("LIE"),
                );
            }
            let answer = Client::over(stream)
                .await
                .unwrap()
                .send(request)
                .await
                .unwrap();
            assert_eq!(answer.status, 200);
            let seen = backend.last().unwrap().headers;
            let told: Vec<_> = seen.get_all("ssl-client-verify").iter().collect();
            assert_eq!(told, verify, "{name}, trusted: {trusted}");
            assert_eq!(
                seen.get("ssl-client-subject-dn")
                    .map(|value| value.to_str().unwrap()),
                subject,
                "{name}, trusted: {trusted}"
            );
            assert_eq!(seen.contains_key("ssl-client-cert"), passes);
            assert!(!seen.contains_key("ssl_client_verify"));
        }
    }
}

/// T6, T7: a request that came on a connection made for another host.
#[tokio::test]
async fn requests_that_came_to_the_wrong_connection() {
    let backend = Backend::start("a").await;
    let servers = Authority::new("servers");
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let (one, two) = (
        certificate(&servers.server(&["a.test", "b.test", "*.wild.test", "m.test", "n.test"])),
        certificate(&servers.server(&["c.test", "m2.test", "m3.test"])),
    );
    let strict = demand(CertificateDemand::Required, &ours);
    let mut deeper = strict.clone();
    deeper.depth = 2;
    let plain = |name| host(name, &[backend.addr]);
    let rules = [
        plain("a.test"),
        plain("b.test"),
        plain("c.test"),
        plain("x.wild.test"),
        plain("nocert.test"),
        demanding(plain("m.test"), &strict),
        demanding(plain("n.test"), &strict),
        demanding(plain("m2.test"), &strict),
        demanding(plain("m3.test"), &deeper),
        demanding(
            plain("o.test"),
            &demand(CertificateDemand::Required, &other),
        ),
    ];
    let table = tls_table(
        &[
            (
                &[
                    "a.test",
                    "b.test",
                    "*.wild.test",
                    "m.test",
                    "n.test",
                    "o.test",
                ],
                &one,
            ),
            (&["c.test", "m2.test", "m3.test"], &two),
        ],
        &rules,
    );
    let proxy = serve_tls(table);
    let carol = ours.client("carol");
    for (name, asked, wanted) in [
        ("a.test", "a.test", 200),
        ("a.test", "A.TEST.:443", 200),
        ("a.test", "b.test", 200),
        ("a.test", "x.wild.test", 200),
        ("a.test", "c.test", 421),
        ("c.test", "a.test", 421),
        ("a.test", "nocert.test", 421),
        ("nocert.test", "nocert.test", 200),
        ("nocert.test", "a.test", 421),
        ("", "a.test", 200),
        ("", "nocert.test", 200),
        ("", "m.test", 421),
        ("a.test", "m.test", 421),
        ("m.test", "a.test", 421),
        ("m.test", "m.test", 200),
        ("m.test", "n.test", 200),
        ("m.test", "m2.test", 421),
        ("m.test", "o.test", 421),
        ("o.test", "m.test", 421),
        ("o.test", "o.test", 400),
        ("m2.test", "m3.test", 421),
        ("m3.test", "m3.test", 200),
        ("a.test", "unknown.test", 421),
        ("a.test", "", 400),
    ] {
        for alpn in ["http/1.1", "h2"] {
            if alpn == "h2" && asked.is_empty() {
                continue;
            }
            let before = backend.requests();
            let client = TlsClient::new(Some(&carol)).alpn(alpn);
            let stream = client.connect(proxy.addr, name).await.unwrap();
            let statuses = if alpn == "h2" {
                // What is refused is one stream: the connection goes on.
                let own = if wanted == 421 && !name.is_empty() {
                    name
                } else {
                    asked
                };
                let (first, second) = (asked.trim_end_matches(":443"), own);
                test_support::client::statuses_over_http2(stream, &[first, second]).await
            } else {
                let answer = Client::over(stream).await.unwrap().get(asked, "/").await;
                vec![answer.unwrap().status.as_u16()]
            };
            assert_eq!(statuses[0], wanted, "SNI {name:?}, Host {asked:?}, {alpn}");
            let later = statuses.get(1).copied().unwrap_or(0);
            if wanted == 421 && !name.is_empty() && alpn == "h2" {
                let own = if name == "o.test" { 400 } else { 200 };
                assert_eq!(later, own, "SNI {name:?}, Host {name:?} afterwards");
            }
            let passed = [wanted, later]
                .iter()
                .filter(|status| **status == 200)
                .count();
            assert_eq!(
                backend.requests() - before,
                passed as u64,
                "SNI {name:?}, Host {asked:?}, {alpn}"
            );
        }
    }
}

#[tokio::test]
async fn without_tls_a_required_certificate_cannot_be_shown() {
    let backend = Backend::start("a").await;
    let authority = Authority::new("clients");
    for (kind, path, wanted) in [
        (CertificateDemand::Required, "/", 421),
        (
            CertificateDemand::Required,
            "/.well-known/acme-challenge/x",
            200,
        ),
        (CertificateDemand::Optional, "/", 200),
    ] {
        let rule = demanding(host("a.test", &[backend.addr]), &demand(kind, &authority));
        let proxy = super::serve(&[rule]);
        let answer = test_support::client::get(proxy.addr, "a.test", path)
            .await
            .unwrap();
        assert_eq!(answer.status.as_u16(), wanted, "{kind} {path}");
    }
}

/// The demand changes under a connection that is open.
#[tokio::test]
async fn an_open_connection_meets_the_demand_of_now() {
    let backend = Backend::start("a").await;
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = certificate(&Authority::new("servers").server(&["a.test"]));
    let rule = || host("a.test", &[backend.addr]);
    let table = |demand: Option<&ClientCertificates>| {
        let rule = demand.map_or_else(rule, |demand| demanding(rule(), demand));
        tls_table(&[(&["a.test"], &server)], &[rule])
    };
    let of = |all: &[&Authority]| {
        let mut demand = demand(CertificateDemand::Required, &old);
        demand.authorities = authorities(all, vec![]);
        demand
    };
    let mut proxy = serve_tls(table(Some(&of(&[&old]))));
    let stream = TlsClient::new(Some(&old.client("carol")))
        .connect(proxy.addr, "a.test")
        .await
        .unwrap();
    let mut client = Client::over(stream).await.unwrap();
    for (what, demand, wanted) in [
        ("as at the handshake", Some(of(&[&old])), 200),
        ("published again", Some(of(&[&old])), 200),
        ("another authority beside it", Some(of(&[&old, &new])), 200),
        (
            "its authority is gone: ask again on a new connection",
            Some(of(&[&new])),
            421,
        ),
        ("it is back", Some(of(&[&old])), 200),
        ("nothing is demanded", None, 200),
        ("it is demanded again", Some(of(&[&old])), 200),
    ] {
        proxy.publisher.apply(table(demand.as_ref())).unwrap();
        let answer = client.get("a.test", "/").await.unwrap();
        assert_eq!(answer.status.as_u16(), wanted, "{what}");
    }
    // A connection that was never asked cannot have shown one.
    proxy.publisher.apply(table(None)).unwrap();
    let stream = TlsClient::new(None)
        .connect(proxy.addr, "a.test")
        .await
        .unwrap();
    let mut client = Client::over(stream).await.unwrap();
    assert_eq!(client.get("a.test", "/").await.unwrap().status, 200);
    let mut optional = of(&[&old]);
    optional.demand = CertificateDemand::Optional;
    proxy.publisher.apply(table(Some(&optional))).unwrap();
    assert_eq!(client.get("a.test", "/").await.unwrap().status, 421);
}

/// What no virtual host serves goes to the default route, which has a demand of its own.
#[tokio::test]
async fn the_default_route_meets_both_demands() {
    use routing_table::{RoutingTable, VirtualHost, VirtualHosts};
    let backend = Backend::start("a").await;
    let authority = Authority::new("clients");
    let server = certificate(&Authority::new("servers").server(&["a.test", "b.test"]));
    let strict = demand(CertificateDemand::Required, &authority);
    // Both ways round: the demand is on the default route only, or on the host only.
    for (of_default, name, identity, wanted) in [
        (true, "b.test", false, 421),
        (true, "other.test", false, 400),
        (true, "other.test", true, 200),
        (false, "b.test", false, 400),
        (false, "b.test", true, 200),
        (false, "other.test", false, 200),
    ] {
        let rules = [host("a.test", &[backend.addr])];
        let Update::Table(table, sets) = tls_table(&[(&["a.test", "b.test"], &server)], &rules)
        else {
            unreachable!("it is a table")
        };
        let mut listener = table.listeners()[0].clone();
        let mut default = (*table.routes()[0]).clone();
        let held = Some(Arc::new(strict.clone()));
        let empty = |host, client_certificates| VirtualHost {
            host,
            routes: vec![],
            client_certificates,
        };
        let b = HostMatch::parse("b.test").unwrap();
        let hosts = if of_default {
            default.client_certificates.clone_from(&held);
            vec![empty(HostMatch::Any, held), empty(b, None)]
        } else {
            vec![empty(b, held)]
        };
        listener.virtual_hosts = Arc::new(VirtualHosts::new(hosts, Some(default)));
        let table = RoutingTable::new(vec![listener], table.clusters().clone()).unwrap();
        let proxy = serve_tls(Update::Table(Arc::new(table), sets));
        let issued = authority.client("carol");
        let client = TlsClient::new(identity.then_some(&issued));
        let got = status(&proxy, &client, name, name).await;
        assert_eq!(
            got, wanted,
            "default: {of_default}, {name}, certificate: {identity}"
        );
    }
}
