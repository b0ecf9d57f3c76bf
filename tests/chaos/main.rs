//! What etcd may do to us, at a steady load of queries that are all compared with what they must be: members killed, frozen, without a quorum,
//! history compacted, a backup restored, values that cannot be read, tokens and certificates that end.
//!
//! `cargo test --test chaos` is the short run; `make chaos` is the long one, which also measures and prints a table. Nothing here is asserted to
//! be fast: what is asserted is that no answer about a name that did not change is wrong, failed or missing, and that changes arrive in the end.

mod certificates;
mod load;
mod measure;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::fs;
use std::process::Command;
use std::time::Duration;

use support::until;
use world::World;

/// How long outages last.
struct Length {
    frozen: Duration,
    away: Duration,
    malformed: usize,
}

const SHORT: Length = Length {
    frozen: Duration::from_secs(4),
    away: Duration::from_secs(1),
    malformed: 10_000,
};
const LONG: Length = Length {
    frozen: Duration::from_secs(15),
    away: Duration::from_secs(5),
    malformed: 100_000,
};

#[test]
fn nothing_that_etcd_does_makes_an_answer_wrong() {
    let mut world = members(&SHORT);
    measure::table(&mut world, &measure::FEW);
    world.finish();
}

#[test]
fn neither_tokens_nor_certificates_that_end_do() {
    secured(&SHORT).finish();
}

/// What `make chaos` runs.
#[test]
#[ignore = "minutes"]
#[allow(clippy::print_stdout, reason = "the table is what it is run for")]
fn in_full() {
    let mut members = members(&LONG);
    let measured = measure::table(&mut members, &measure::MANY);
    let secured = secured(&LONG);
    let (head, rows) = (world::TABLE_HEAD, members.table() + &secured.table());
    println!("\n{head}{rows}\n{measured}");
    members.finish();
    secured.finish();
}

/// Time that an outage lasts: it is what is tested, nothing waits for anything here.
fn lasts(time: Duration) {
    std::thread::sleep(time);
}

/// The cases about members and what they hold.
fn members(length: &Length) -> World {
    let mut world = World::start();
    world.case("nothing happens", |_| lasts(length.away));
    world.case("leader killed, then back", |world| {
        let leader = world.cluster.leader();
        world.cluster.members[leader].end();
        world.put_and_see("killed");
        world.restart(leader);
    });
    world.case("leader frozen, then on", |world| {
        let leader = world.cluster.leader();
        world.cluster.members[leader].signal("-STOP");
        world.put_and_see("frozen");
        world.cluster.members[leader].signal("-CONT");
    });
    let frozen = format!("all frozen for {} s", length.frozen.as_secs());
    world.case(&frozen, |world| {
        world.signal_all("-STOP");
        lasts(length.frozen);
        world.signal_all("-CONT");
    });
    world.case("all killed, then started again", |world| {
        world.cluster.members.clear();
        lasts(length.away);
        world.cluster.start_members();
    });
    world.case("quorum lost, then back", |world| {
        for member in 0..3 {
            world.cluster.members[member].end();
        }
        lasts(length.frozen);
        for member in 0..3 {
            world.restart(member);
        }
        world.cluster.wait();
    });
    world.case(
        "compacted past our revision while we were cut off",
        compacted,
    );
    world.case("restored from a backup", restored);
    let malformed = format!("{} values that cannot be read", length.malformed);
    world.case(&malformed, |world| {
        measure::put_malformed(&world.cluster, length.malformed);
        world.put_and_see("behind");
        world
            .cluster
            .ctl(&["del", "--prefix", "/skydns/org/example/bad/"]);
    });
    world
}

/// While we cannot reach it, a key goes, another comes, and the history is forgotten.
fn compacted(world: &mut World) {
    world.cluster.put_host("gone", 1);
    world.becomes("gone", Some(1));
    world.stop_writing();
    // The members move to ports that we do not know.
    let ports = world.cluster.move_clients();
    world.cluster.ctl(&["del", "/skydns/org/example/gone"]);
    for value in 1..=20 {
        world.cluster.put_host("new", value);
    }
    let revision = world.cluster.revision().to_string();
    world.cluster.ctl(&["compact", &revision]);
    assert_eq!(world.answer("gone"), Some(1), "nobody has told us");
    world.cluster.move_back(ports);
    world.becomes("gone", None);
    world.becomes("new", Some(20));
    world.cluster.ctl(&["del", "/skydns/org/example/new"]);
    world.becomes("new", None);
}

/// What was written behind the backup is gone, what was deleted behind it is there again; the revision goes back, the cluster is another one.
fn restored(world: &mut World) {
    world.cluster.put_host("before", 1);
    world.becomes("before", Some(1));
    world.stop_writing();
    world.goes_back();
    let backup = world.dir.path().join("backup").display().to_string();
    let endpoint = world.cluster.endpoints()[0].clone();
    // A backup is of one member.
    let saved = || {
        world
            .cluster
            .try_ctl_at(&endpoint, &["snapshot", "save", &backup])
    };
    until("the backup is there", saved);
    world.cluster.ctl(&["del", "/skydns/org/example/before"]);
    world.cluster.put_host("after", 2);
    world.becomes("before", None);
    world.becomes("after", Some(2));

    world.cluster.members.clear();
    let cluster = &world.cluster;
    let peers = cluster.ports.iter().enumerate();
    let peers = peers.map(|(i, (_, peer))| format!("m{i}=http://127.0.0.1:{peer}"));
    let initial = peers.collect::<Vec<_>>().join(",");
    for member in 0..cluster.ports.len() {
        let dir = world.dir.path().join(format!("m{member}"));
        fs::remove_dir_all(&dir).expect("our folder");
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore", &backup, "--data-dir"])
            .arg(&dir)
            .args(["--name", &format!("m{member}")])
            .args(["--initial-cluster", &initial])
            .args(["--initial-cluster-token", "restored"])
            .arg("--initial-advertise-peer-urls")
            .arg(format!("http://127.0.0.1:{}", cluster.ports[member].1))
            .output()
            .expect("etcdctl is installed: make test-packages");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
    }
    world.cluster.start_members();
    world.becomes("before", Some(1));
    world.becomes("after", None);
}

/// The cases of a cluster with TLS, client certificates, users, and tokens of three seconds.
fn secured(length: &Length) -> World {
    let mut world = World::start_secured();
    world.case("tokens expire (JWT, 3 s)", |world| {
        lasts(Duration::from_secs(4));
        world.put_and_see("expired");
        // A connection that is opened again needs a new one.
        world.restart(0);
        world.restart(1);
        lasts(length.away);
        world.put_and_see("again");
    });
    world.case("the user's rights change", |world| {
        world.cluster.ctl(&["role", "add", "other"]);
        world.cluster.ctl(&["user", "grant-role", "dns", "other"]);
        world.put_and_see("granted");
    });
    world.case("certificates rotated under another authority", |world| {
        let certificates = world.certificates.as_ref();
        certificates.expect("it has them").rotate();
        world.cluster.members.clear();
        world.cluster.start_members();
    });
    world.case("rotated again, and a reload meanwhile", |world| {
        let certificates = world.certificates.as_ref();
        certificates.expect("it has them").rotate();
        world.cluster.members.clear();
        world.server.process.signal("-HUP");
        world
            .server
            .line(|line| line.contains("Reloading complete"));
        world.cluster.start_members();
    });
    world
}
