//! What the binary can say of how it was built: the compiler, and the commit where whoever builds says it (TIDEGATE_COMMIT).

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TIDEGATE_COMMIT");
    let commit = std::env::var("TIDEGATE_COMMIT").unwrap_or_default();
    let compiler = std::env::var_os("RUSTC").and_then(|compiler| {
        let told = Command::new(compiler).arg("--version").output().ok()?;
        let told = String::from_utf8(told.stdout).ok()?;
        // "rustc 1.95.0 (…)": the number tells enough.
        told.split(' ')
            .nth(1)
            .map(|version| version.trim().to_owned())
    });
    println!("cargo::rustc-env=TIDEGATE_COMMIT={}", commit.trim());
    println!(
        "cargo::rustc-env=TIDEGATE_RUSTC={}",
        compiler.unwrap_or_default()
    );
}
