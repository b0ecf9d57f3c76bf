//! NSD: the world outside.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use super::process::{Process, free_port, until};

/// A zone for example.com with `www`, and more lines if wanted.
pub(crate) fn zone(address: &str, more: &str) -> String {
    format!(
        "$ORIGIN example.com.\n$TTL 300\n@ SOA ns admin 1 7200 900 1209600 300\n@ NS ns\nns A 127.0.0.1\nwww A {address}\n{more}"
    )
}

/// Serves this zone as example.com; its port.
pub(crate) fn nsd(dir: &Path, zone: &str) -> (Process, u16) {
    let port = free_port();
    fs::write(dir.join("zone"), zone).expect("our folder");
    let path = dir.display();
    let conf = format!(
        "server:\n  ip-address: 127.0.0.1@{port}\n  username: \"\"\n  zonesdir: \"{path}\"\n  database: \"\"\n  pidfile: \"{path}/nsd.pid\"\n  zonelistfile: \"{path}/zl\"\n  xfrdfile: \"{path}/xf\"\n  xfrdir: \"{path}\"\nremote-control:\n  control-enable: no\nzone:\n  name: example.com\n  zonefile: zone\n"
    );
    fs::write(dir.join("nsd.conf"), conf).expect("our folder");
    let child = Command::new("nsd")
        .args(["-d", "-c"])
        .arg(dir.join("nsd.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nsd is installed: make test-packages");
    let process = Process(child);
    until("the upstream listens", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
    });
    (process, port)
}
