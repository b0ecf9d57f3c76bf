//! NSD and Knot with a folder of zones, and a connection to ask over.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use hickory_proto::op::Message;

use crate::support::{PATIENCE, Process, free_port, read_frame, send_frame, until};

fn start(command: &mut Command, name: &str, port: u16) -> Process {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|_| panic!("{name} is installed: make test-packages"));
    let process = Process(child);
    until(&format!("{name} listens"), || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
    });
    process
}

/// NSD with these zones, each in a file of its name.
pub(crate) fn nsd(dir: &Path, zones: &[String]) -> (Process, u16) {
    let (port, path) = (free_port(), dir.display());
    let mut conf = format!(
        "server:\n  ip-address: 127.0.0.1@{port}\n  username: \"\"\n  zonesdir: \"{path}\"\n  database: \"\"\n  pidfile: \"{path}/nsd.pid\"\n  zonelistfile: \"{path}/zl\"\n  xfrdfile: \"{path}/xf\"\n  xfrdir: \"{path}\"\n  logfile: \"{path}/nsd.log\"\nremote-control:\n  control-enable: no\n"
    );
    for zone in zones {
        conf += &format!("zone:\n  name: {zone}\n  zonefile: {zone}.zone\n");
    }
    fs::write(dir.join("nsd.conf"), conf).expect("our folder");
    let mut command = Command::new("nsd");
    command.args(["-d", "-c"]).arg(dir.join("nsd.conf"));
    (start(&mut command, "nsd", port), port)
}

/// Knot with these zones.
pub(crate) fn knot(dir: &Path, zones: &[String]) -> (Process, u16) {
    let (port, path) = (free_port(), dir.display());
    let mut conf = format!(
        "server:\n  rundir: {path}\n  listen: 127.0.0.1@{port}\ndatabase:\n  storage: {path}/knot\nlog:\n  - target: {path}/knot.log\n    any: info\ntemplate:\n  - id: default\n    storage: {path}\n    file: \"%s.zone\"\n    zonefile-sync: -1\n    semantic-checks: off\nzone:\n"
    );
    for zone in zones {
        conf += &format!("  - domain: {zone}\n");
    }
    fs::write(dir.join("knot.conf"), conf).expect("our folder");
    let mut command = Command::new("knotd");
    command.arg("-c").arg(dir.join("knot.conf"));
    (start(&mut command, "knotd", port), port)
}

/// A TCP connection that is opened again when the server has had enough of it.
pub(crate) struct Connection {
    port: u16,
    stream: TcpStream,
}

impl Connection {
    pub(crate) fn new(port: u16) -> Connection {
        Connection {
            port,
            stream: connect(port),
        }
    }

    pub(crate) fn ask(&mut self, query: &Message) -> Message {
        let bytes = query.to_vec().expect("a small query");
        for _ in 0..3 {
            send_frame(&mut self.stream, &bytes);
            if let Some(frame) = read_frame(&mut self.stream) {
                return Message::from_vec(&frame).expect("a message");
            }
            self.stream = connect(self.port);
        }
        panic!("no answer to {}", query.queries[0]);
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.set_nodelay(true).expect("a socket");
    stream
}
