//! A running skeindns, and an upstream that answers when it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Longer than anything takes on a machine that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary.
pub(crate) fn skeindns() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skeindns"));
    command.env("SKEINDNS_WORKERS", "2");
    command
}

/// A server in a folder of its own; ended when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) folder: tempfile::TempDir,
    /// Ports of the server blocks, in the order of the start-up lines.
    pub(crate) ports: Vec<u16>,
    /// HTTP endpoints with ports that the system chose.
    pub(crate) urls: Vec<String>,
    lines: Receiver<String>,
}

impl Server {
    /// Starts it with this Dnsfile and waits for its start-up lines.
    pub(crate) fn start(dnsfile: &str) -> Server {
        Server::start_by(skeindns(), dnsfile)
    }

    /// Starts it by a command that ends in the binary.
    pub(crate) fn start_by(mut command: Command, dnsfile: &str) -> Server {
        let folder = tempfile::tempdir().expect("a folder for the test");
        std::fs::write(folder.path().join("Dnsfile"), dnsfile).expect("the folder is ours");
        let mut child = command
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let output = child.stdout.take().expect("it is piped");
        let (sender, lines) = sync_channel(10_000);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut server = Server {
            child,
            folder,
            ports: Vec::new(),
            urls: Vec::new(),
            lines,
        };
        loop {
            let line = server.line();
            if line.starts_with("linux/") {
                return server;
            }
            if line.starts_with("http://") {
                server.urls.push(line);
            } else if let Some(port) = port(&line) {
                server.ports.push(port);
            }
        }
    }

    /// The next line it prints.
    pub(crate) fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("it says nothing more"),
            Err(RecvTimeoutError::Disconnected) => panic!("it ended: {:?}", self.child.wait()),
        }
    }

    /// Reads lines until one contains this.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The first listener.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[0]))
    }

    pub(crate) fn dnsfile(&self) -> PathBuf {
        self.folder.path().join("Dnsfile")
    }

    pub(crate) fn write(&self, dnsfile: &str) {
        std::fs::write(self.dnsfile(), dnsfile).expect("the folder is ours");
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(status.expect("there is a kill").success());
    }

    /// Reloads and waits until it is done.
    pub(crate) fn reload(&mut self) {
        self.signal("HUP");
        self.wait_for("Reloading complete");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// `.:1053 on 127.0.0.1`: the port.
fn port(line: &str) -> Option<u16> {
    let (zone, _) = line.split_once(" on ").unwrap_or((line, ""));
    zone.rsplit_once(':')?.1.parse().ok()
}

/// Waits for a process's end, asking now and then.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status;
        }
        assert!(begin.elapsed() < PATIENCE, "it does not end");
        std::thread::yield_now();
    }
}

/// Runs a command to its end: exit code, standard output, standard error.
pub(crate) fn output(command: &mut Command, input: &str) -> (Option<i32>, String, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // It may end without reading.
    child
        .stdin
        .take()
        .expect("it is piped")
        .write_all(input.as_bytes())
        .ok();
    let output = child.wait_with_output().expect("it ends");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// An upstream: answers NXDOMAIN at once, but keeps questions for names that begin with `held` until it is told.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    release: UdpSocket,
    seen: Receiver<()>,
}

impl Upstream {
    pub(crate) fn start() -> Upstream {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        let release = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let releaser = release.local_addr().expect("it is bound");
        let (sender, seen) = sync_channel(1000);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                if from == releaser {
                    for (reply, to) in held.drain(..) {
                        send(&socket, reply, to);
                    }
                } else if buffer[..len].windows(5).any(|part| part == b"\x04held") {
                    held.push((buffer[..len].to_vec(), from));
                    if sender.send(()).is_err() {
                        return;
                    }
                } else {
                    send(&socket, buffer[..len].to_vec(), from);
                }
            }
        });
        Upstream {
            address,
            release,
            seen,
        }
    }

    /// Waits until it has a question that it keeps.
    pub(crate) fn wait(&self) {
        self.seen
            .recv_timeout(PATIENCE)
            .expect("the question arrives");
    }

    /// Lets it answer what it keeps.
    pub(crate) fn release(&self) {
        self.release
            .send_to(b"now", self.address)
            .expect("it is there");
    }
}

fn send(socket: &UdpSocket, mut message: Vec<u8>, to: SocketAddr) {
    message[2] |= 0x80;
    message[3] = 0x83;
    socket.send_to(&message, to).ok();
}

/// A page over HTTP/1.1: head and body.
pub(crate) fn http(method: &str, url: &str) -> (String, String) {
    let rest = url.strip_prefix("http://").expect("a plain URL");
    let (address, path) = rest.split_once('/').expect("a path");
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    write!(
        stream,
        "{method} /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head ends");
    (head.to_owned(), body.to_owned())
}
