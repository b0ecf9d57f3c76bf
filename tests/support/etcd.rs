//! Clusters of etcd's own servers on loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::process::{Process, free_port, until};

/// A cluster; its members end with it.
pub(crate) struct Cluster {
    pub(crate) dir: PathBuf,
    /// Client's and peers' port of each member.
    pub(crate) ports: Vec<(u16, u16)>,
    pub(crate) members: Vec<Process>,
    pub(crate) scheme: &'static str,
    /// Further arguments of each member.
    pub(crate) extra: Vec<String>,
    /// What etcdctl needs beside the endpoints.
    pub(crate) ctl: Vec<String>,
}

impl Cluster {
    /// Starts one and waits until it is healthy.
    pub(crate) fn start(dir: &Path, size: usize) -> Cluster {
        Cluster::start_with(dir, size, "http", &[], &[])
    }

    /// The same with TLS or whatever the arguments say.
    pub(crate) fn start_with(
        dir: &Path,
        size: usize,
        scheme: &'static str,
        extra: &[String],
        ctl: &[String],
    ) -> Cluster {
        let ports = (0..size).map(|_| (free_port(), free_port())).collect();
        let mut cluster = Cluster::planned(dir, ports);
        cluster.scheme = scheme;
        cluster.extra = extra.to_vec();
        cluster.ctl = ctl.to_vec();
        cluster.start_members();
        cluster
    }

    /// One whose members are not started yet.
    pub(crate) fn planned(dir: &Path, ports: Vec<(u16, u16)>) -> Cluster {
        Cluster {
            dir: dir.to_owned(),
            ports,
            members: Vec::new(),
            scheme: "http",
            extra: Vec::new(),
            ctl: Vec::new(),
        }
    }

    /// Starts all members, at first or again, and waits until the cluster is healthy.
    pub(crate) fn start_members(&mut self) {
        self.members.clear();
        self.members = (0..self.ports.len()).map(|i| self.member(i)).collect();
        self.wait();
    }

    /// Starts one member, at first or again.
    pub(crate) fn member(&self, member: usize) -> Process {
        let peers = self.ports.iter().enumerate();
        let initial: Vec<String> = peers
            .map(|(i, (_, peer))| format!("m{i}=http://127.0.0.1:{peer}"))
            .collect();
        let client = format!("{}://127.0.0.1:{}", self.scheme, self.ports[member].0);
        let peer = format!("http://127.0.0.1:{}", self.ports[member].1);
        let name = format!("m{member}");
        let log = fs::File::create(self.dir.join(format!("{name}.log"))).expect("our folder");
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.dir.join(&name))
            .args(["--name", &name])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &initial.join(",")])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd is installed: make test-packages");
        Process(child)
    }

    /// The members' URLs for clients.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let clients = self.ports.iter();
        clients
            .map(|(client, _)| format!("{}://127.0.0.1:{client}", self.scheme))
            .collect()
    }

    /// etcdctl's output, if it succeeds.
    pub(crate) fn try_ctl(&self, args: &[&str]) -> Option<String> {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoints().join(",")])
            .args(&self.ctl)
            .args(args)
            .output()
            .expect("etcdctl is installed: make test-packages");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }

    /// etcdctl's output, again until it succeeds.
    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        until(&format!("etcdctl {args:?} succeeds"), || self.try_ctl(args))
    }

    /// Waits until it is healthy.
    pub(crate) fn wait(&self) {
        until("the cluster is healthy", || {
            self.try_ctl(&["endpoint", "health"])
        });
    }
}
