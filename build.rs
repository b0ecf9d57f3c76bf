//! Tells the version which compiler and which commit it was built with.

use std::path::Path;
use std::process::Command;

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    // `rustc 1.95.0 (hash date)`: the first two words.
    let compiler = output(&rustc, &["--version"])
        .map(|text| text.split(' ').take(2).collect::<Vec<_>>().join(" "));
    let commit = output("git", &["rev-parse", "--short=8", "HEAD"]);
    println!(
        "cargo::rustc-env=SKEINDNS_RUSTC={}",
        compiler.as_deref().unwrap_or("rustc")
    );
    println!(
        "cargo::rustc-env=SKEINDNS_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(folder) = output("git", &["rev-parse", "--git-dir"]) {
        let log = Path::new(&folder).join("logs/HEAD");
        if log.exists() {
            println!("cargo::rerun-if-changed={}", log.display());
        }
    }
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
