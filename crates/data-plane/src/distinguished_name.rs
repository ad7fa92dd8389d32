//! Distinguished names as text, in the form nginx gives them to upstreams (RFC 2253, all ASCII).

use std::fmt::Write;
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Short names of attribute types, as OpenSSL writes them.
const SHORT: [(&str, &str); 17] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.97", "organizationIdentifier"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];

/// The name, last part first. No byte of it is outside printable ASCII, whatever the certificate holds.
pub(crate) fn text(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (position, part) in parts.into_iter().rev().enumerate() {
        if position > 0 {
            out.push(',');
        }
        for (position, attribute) in part.iter().enumerate() {
            if position > 0 {
                out.push('+');
            }
            write_attribute(&mut out, attribute);
        }
    }
    out
}

fn write_attribute(out: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let id = attribute.attr_type().to_id_string();
    let short = SHORT.iter().find(|(oid, _)| *oid == id);
    let value = attribute.attr_value();
    let text = matches!(
        value.header.tag(),
        Tag::Utf8String
            | Tag::PrintableString
            | Tag::Ia5String
            | Tag::TeletexString
            | Tag::NumericString
            | Tag::VisibleString
    );
    match short {
        Some((_, short)) if text => {
            out.push_str(short);
            out.push('=');
            escape(out, value.data);
        }
        // What has no name or is no text is shown as bytes.
        _ => {
            out.push_str(short.map_or(id.as_str(), |(_, short)| short));
            out.push_str("=#");
            for byte in value.data {
                // Writing to a String cannot fail.
                let _ = write!(out, "{byte:02X}");
            }
        }
    }
}

/// RFC 2253, section 2.4, with everything outside printable ASCII as `\XX`.
fn escape(out: &mut String, bytes: &[u8]) {
    for (position, byte) in bytes.iter().enumerate() {
        let (first, last) = (position == 0, position + 1 == bytes.len());
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            b' ' if first || last => out.push_str("\\ "),
            b'#' if first => out.push_str("\\#"),
            0x20..=0x7e => out.push(char::from(*byte)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\{byte:02X}");
            }
        }
    }
}
