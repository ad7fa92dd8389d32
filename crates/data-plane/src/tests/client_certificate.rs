//! What an upstream is told, in the form that nginx tells it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use test_support::Authority;

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        out.push(char::from(u8::from_str_radix(&after[..2], 16).unwrap()));
        rest = &after[2..];
    }
    out + rest
}

#[test]
fn fields_of_a_certificate() {
    let issued = Authority::new("clients").client("carol");
    let text = fields(&issued.chain[0], None, true);
    let lines: Vec<&str> = text.trim_end().split("\r\n").collect();
    let (name, escaped) = lines[0].split_once(": ").unwrap();
    assert_eq!(name, "ssl-client-cert");
    assert!(
        escaped
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b))
    );
    assert_eq!(unescaped(escaped), issued.pem.replace("\r\n", "\n"));
    assert_eq!(
        lines[1..],
        [
            "ssl-client-verify: SUCCESS",
            r"ssl-client-subject-dn: CN=carol,O=Shop\, Inc.,C=DE",
            "ssl-client-issuer-dn: CN=clients",
        ]
    );
    let text = fields(&issued.chain[0], Some("certificate has expired"), false);
    assert!(text.starts_with("ssl-client-verify: FAILED:certificate has expired\r\n"));
}

/// `openssl x509 -noout -subject -nameopt RFC2253` says the same of these.
#[test]
fn names_cannot_break_out_of_their_line() {
    for (name, expected) in [
        (
            "a\r\nssl-client-verify: SUCCESS",
            r"CN=a\0D\0Assl-client-verify: SUCCESS",
        ),
        ("J\u{f6}rg", r"CN=J\C3\B6rg"),
        (" #a+b=\"c\"<d>;\\ ", r#"CN=\ #a\+b=\"c\"\<d\>\;\\\ "#),
        ("#hash", r"CN=\#hash"),
        ("nul\0", r"CN=nul\00"),
    ] {
        let issued = Authority::new("clients").client(name);
        let text = fields(&issued.chain[0], None, false);
        let subject = text
            .split("\r\n")
            .find_map(|line| line.strip_prefix("ssl-client-subject-dn: "));
        let expected = format!(r"{expected},O=Shop\, Inc.,C=DE");
        assert_eq!(subject, Some(expected.as_str()), "{name:?}");
        assert!(text.is_ascii());
    }
}
