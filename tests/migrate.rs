//! `skeindns migrate` with the real binary and an etcd that has both stores.

mod support;

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use skein_plugins::etcd::{Config, V2Client, V2Put};
use support::{Cluster, binary, until};

fn both_stores(dir: &std::path::Path) -> Cluster {
    Cluster::start_with(dir, 1, "http", &["--enable-v2".into()], &[])
}

fn migrate(cluster: &Cluster, arguments: &[&str]) -> Output {
    let output = binary()
        .arg("migrate")
        .args(["--endpoint", &cluster.endpoints().join(",")])
        .args(arguments)
        .env_remove("ETCD_ENDPOINTS")
        .env_remove("ETCD_MACHINES")
        .stdin(Stdio::null())
        .output();
    output.expect("the binary starts")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The value of a key in v3.
fn v3(cluster: &Cluster, key: &str) -> String {
    cluster
        .ctl(&["get", key, "--print-value-only"])
        .trim_end()
        .to_owned()
}

/// Does something in v2.
fn in_v2<T>(cluster: &Cluster, what: impl AsyncFnOnce(V2Client) -> T) -> T {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let config = Config {
        endpoints: cluster.endpoints(),
        ..Config::default()
    };
    let client = V2Client::new(&config).expect("no files to read");
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(what(client))
}

fn put(cluster: &Cluster, keys: &[(&str, V2Put)]) {
    in_v2(cluster, async |client| {
        for (key, put) in keys {
            client.put(key, put).await.expect("etcd takes it");
        }
    });
}

#[test]
fn everything_is_moved_and_nothing_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = both_stores(dir.path());
    in_v2(&cluster, async |client| {
        for number in 0..400 {
            let key = format!("/skydns/local/skydns/rack{}/host{number}", number / 50);
            let value = format!(
                r#"{{"host":"192.0.2.{}","text":"a b+c&d=ü%41"}}"#,
                number % 250
            );
            client
                .put(&key, &V2Put::value(value))
                .await
                .expect("etcd takes it");
        }
    });
    put(
        &cluster,
        &[
            ("/skydns/config", V2Put::value(r#"{"ttl":3600}"#)),
            ("/skydns/local/skydns/empty", V2Put::directory()),
            ("/skydns/local/skydns/a", V2Put::value("1").ttl(2980)),
            ("/skydns/local/skydns/b", V2Put::value("2").ttl(2990)),
            ("/skydns/local/skydns/c", V2Put::value("3").ttl(300)),
            // What is below a directory that ends, ends too.
            ("/skydns/local/skydns/ends", V2Put::directory().ttl(900)),
            ("/skydns/local/skydns/ends/x", V2Put::value("4")),
            // Lists leave these out.
            ("/skydns/local/skydns/web/_tcp/_http/w1", V2Put::value("5")),
            ("/skydns/local/skydns/web/_mine/w2", V2Put::value("6")),
            ("/elsewhere/x", V2Put::value("7")),
        ],
    );
    // A dry run writes nothing.
    let output = migrate(&cluster, &[]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(
        shown.contains("406 new, 0 the same already, 0 with another value"),
        "{shown}"
    );
    assert!(
        shown.contains("dry run: 406 keys would be written"),
        "{shown}"
    );
    assert!(
        shown.contains("4 of them with an end") && shown.contains("v2: 1 hidden keys"),
        "{shown}"
    );
    assert!(shown.contains("1 empty directories"), "{shown}");
    assert_eq!(
        cluster.ctl(&["get", "--prefix", "/", "--keys-only"]).trim(),
        ""
    );
    let output = migrate(
        &cluster,
        &["--write", "--hidden", "_mine", "--format", "json"],
    );
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["written"], 407, "{report:#}");
    assert_eq!(report["v3"]["after"], 407);
    assert_eq!(report["missing"].as_array().map(Vec::len), Some(0));
    // The two whose ends are near share a lease.
    assert_eq!(report["leases"], 3, "{report:#}");
    assert_eq!(v3(&cluster, "/skydns/config"), r#"{"ttl":3600}"#);
    assert_eq!(
        v3(&cluster, "/skydns/local/skydns/rack7/host399"),
        r#"{"host":"192.0.2.149","text":"a b+c&d=ü%41"}"#
    );
    assert_eq!(v3(&cluster, "/skydns/local/skydns/web/_tcp/_http/w1"), "5");
    assert_eq!(v3(&cluster, "/skydns/local/skydns/web/_mine/w2"), "6");
    assert_eq!(v3(&cluster, "/elsewhere/x"), "");
    let leases = cluster.ctl(&["lease", "list"]);
    let granted: Vec<u64> = leases
        .lines()
        .skip(1)
        .map(|id| cluster.ctl(&["lease", "timetolive", id.trim(), "--write-out", "json"]))
        .map(|json| {
            serde_json::from_str::<Value>(&json).expect("JSON")["granted-ttl"]
                .as_u64()
                .expect("seconds")
        })
        .collect();
    for ttl in [300, 900, 2990] {
        assert!(
            granted
                .iter()
                .any(|g| (ttl - 60..=ttl + ttl / 32 + 2).contains(g)),
            "{ttl}: {granted:?}"
        );
    }
    // A second run finds everything there.
    let output = migrate(&cluster, &["--write", "--hidden", "_mine"]);
    let shown = text(&output);
    assert!(
        shown.contains("0 new, 407 the same already") && shown.contains("written: 0 keys"),
        "{shown}"
    );
}

#[test]
fn what_v3_has_already_is_somebodys_decision() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = both_stores(dir.path());
    put(
        &cluster,
        &[
            ("/skydns/local/skydns/a", V2Put::value("old")),
            ("/skydns/local/skydns/b", V2Put::value("both")),
            ("/skydns/local/skydns/c", V2Put::value("only")),
            ("/skydns/local/skydns/d", V2Put::value("ends").ttl(600)),
        ],
    );
    for (key, value) in [("a", "new"), ("b", "both"), ("d", "ends"), ("e", "v3 only")] {
        cluster.ctl(&["put", &format!("/skydns/local/skydns/{key}"), value]);
    }
    // Nothing is written until it is said which counts.
    let output = migrate(&cluster, &["--write"]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("other  /skydns/local/skydns/a  v2 old  v3 new"),
        "{shown}"
    );
    assert!(
        shown.contains("the same value, without an end") && shown.contains("--overwrite keep"),
        "{shown}"
    );
    assert_eq!(v3(&cluster, "/skydns/local/skydns/c"), "");
    let output = migrate(&cluster, &["--write", "--overwrite", "keep"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(v3(&cluster, "/skydns/local/skydns/a"), "new");
    assert_eq!(v3(&cluster, "/skydns/local/skydns/c"), "only");
    let output = migrate(&cluster, &["--write", "--overwrite", "replace"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(v3(&cluster, "/skydns/local/skydns/a"), "old");
    assert_eq!(v3(&cluster, "/skydns/local/skydns/e"), "v3 only");
    let details = cluster.ctl(&["get", "/skydns/local/skydns/d", "--write-out", "json"]);
    assert!(details.contains("\"lease\""), "{details}");
}

#[test]
fn into_another_cluster_and_without_a_v2_store() {
    let (one, two) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let old = both_stores(one.path());
    let new = Cluster::start(two.path(), 1);
    put(&old, &[("/skydns/local/skydns/a", V2Put::value("1"))]);
    let output = migrate(&old, &["--write", "--to", &new.endpoints()[0]]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(v3(&new, "/skydns/local/skydns/a"), "1");
    assert_eq!(v3(&old, "/skydns/local/skydns/a"), "");
    let output = migrate(&new, &[]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("--enable-v2"), "{}", text(&output));
    let output = migrate(&old, &["--hidden", "tcp"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let output = migrate(&old, &["--path", "other"]);
    assert!(text(&output).contains("v2: 0 keys"), "{}", text(&output));
}

#[test]
fn a_run_that_was_stopped_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = both_stores(dir.path());
    in_v2(&cluster, async |client| {
        for number in 0..600 {
            let key = format!("/skydns/local/skydns/host{number}");
            client
                .put(&key, &V2Put::value("1"))
                .await
                .expect("etcd takes it");
        }
    });
    let mut child = Command::new(binary().get_program())
        .args(["migrate", "--write", "--endpoint", &cluster.endpoints()[0]])
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let count = || {
        let keys = cluster.ctl(&["get", "--prefix", "/skydns/", "--keys-only"]);
        keys.lines().filter(|line| !line.is_empty()).count()
    };
    until("it has begun", || (count() > 0).then_some(()));
    child.kill().ok();
    child.wait().ok();
    let output = migrate(&cluster, &["--write", "--format", "json"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["v3"]["after"], 600);
    assert_eq!(
        report["same"].as_u64().unwrap_or(0) + report["written"].as_u64().unwrap_or(0),
        600
    );
}
