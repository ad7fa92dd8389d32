//! What the documentation shows works, and the committed schema is that of the types.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use standalone::{Defaults, cases, config, source};
use std::path::PathBuf;

fn docs(name: &str) -> String {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    std::fs::read_to_string(docs.join(name)).unwrap()
}

/// The blocks of a language in a page.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let each = page.split(&fence).skip(1);
    each.map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_example_and_its_cases_work() {
    let page = docs("standalone.md");
    let blocks = blocks(&page, "yaml");
    let [example, tried] = blocks.as_slice() else {
        panic!("{} blocks of YAML", blocks.len());
    };
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["shop", "default"] {
        let (certificate, key) = test_support::certificate::self_signed(&["shop.example.com"]);
        std::fs::write(at(&format!("{name}.pem")), certificate).unwrap();
        std::fs::write(at(&format!("{name}.key")), key).unwrap();
    }
    std::fs::write(at("tidegate.yaml"), example).unwrap();
    std::fs::write(at("cases.yaml"), tried).unwrap();
    let made = source::load(&at("tidegate.yaml"), &Defaults::default()).unwrap();
    let text = routing_table::text::render(&made.table, &made.endpoints);
    for line in [
        "    prefix /checkout POST -> standalone/cart:0 connect=500ms first-byte=10s attempts=1  [Route/standalone/checkout routes[0]]",
        "  certificate *.shop.example.com: ",
        "listener database 127.0.0.1:5432 tcp -> standalone/db:0 idle=1800s  [Listener/standalone/database backend]",
        "cluster standalone/cart:0: by address cart.internal. port 8080 @10.0.0.53:53",
    ] {
        assert!(text.contains(line), "{line}\nis not in\n{text}");
    }
    let outcome = cases::run(&at("cases.yaml"), &made.table).unwrap();
    assert_eq!(
        (outcome.passed, outcome.failed, outcome.report.as_str()),
        (4, 0, "")
    );
}

#[test]
fn the_schema_is_fresh() {
    assert!(
        docs("config.schema.json") == config::schema(),
        "docs/config.schema.json is stale: run `cargo xtask codegen`"
    );
}

/// Every key of the file itself is in the table of the page; those of a policy have their own page.
#[test]
fn every_key_is_in_the_page() {
    let page = docs("standalone.md");
    let schema: serde_json::Value = serde_json::from_str(&config::schema()).unwrap();
    for kind in [
        "ListenerConfig",
        "CertificateConfig",
        "PassthroughConfig",
        "RouteConfig",
        "PathConfig",
        "FieldConfig",
        "TimeoutsConfig",
        "RetriesConfig",
        "BackendConfig",
        "BackendTlsConfig",
    ] {
        let keys = schema["$defs"][kind]["properties"].as_object().unwrap();
        assert!(!keys.is_empty(), "{kind}");
        for key in keys.keys() {
            let said = page.contains(&format!("`{key}`"))
                || page.contains(&format!("`.{key}`"))
                || page.contains(&format!("`.{key}[]`"))
                || page.contains(&format!(".{key}`"))
                || page.contains(&format!("`.{key}."))
                || page.contains(&format!("`{key}: "));
            assert!(said, "{kind}.{key} is not in docs/standalone.md");
        }
    }
}
