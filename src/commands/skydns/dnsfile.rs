//! The Dnsfile that settings amount to. It is what runs, and what `-print-dnsfile` prints.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::settings::Settings;

/// The variable that the Dnsfile takes the password from.
pub(super) const PASSWORD: &str = "ETCD_PASSWORD";
/// Where nameservers are read where none is set.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What settings do not say by themselves.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// The text of /etc/resolv.conf; none if there is no such file.
    pub(super) resolv_conf: Option<String>,
    /// Addresses of the sockets that systemd has passed.
    pub(super) sockets: Vec<SocketAddr>,
}

impl Surroundings {
    /// Those of this process.
    pub(super) fn find() -> Surroundings {
        let text = std::fs::read(RESOLV_CONF).ok();
        Surroundings {
            resolv_conf: text.map(|text| String::from_utf8_lossy(&text).into_owned()),
            sockets: crate::listen::inherited::addresses(),
        }
    }
}

/// Addresses that are answered on.
pub(super) fn addresses(settings: &Settings, around: &Surroundings) -> Vec<SocketAddr> {
    match settings.systemd {
        true => around.sockets.clone(),
        false => vec![settings.dns_addr],
    }
}

/// The whole text.
pub(super) fn write(settings: &Settings, around: &Surroundings) -> String {
    let mut out = Text::default();
    out.line("# What the settings of `skeindns skydns` amount to.");
    if settings.password.value.is_some() {
        out.line(&match settings.password.is_variable {
            true => format!("# The password is read from the variable {PASSWORD}."),
            false => format!(
                "# The password that was given with -password is not shown: put it into the variable {PASSWORD}."
            ),
        });
    }
    let addresses = addresses(settings, around);
    let mut ports: Vec<u16> = addresses.iter().map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    for port in ports {
        let ips = addresses.iter().filter(|address| address.port() == port);
        let ips: Vec<IpAddr> = ips.map(SocketAddr::ip).collect();
        out.block(&[&format!(".:{port}")], |out| {
            chain(out, settings, around, &ips);
        });
    }
    out.text
}

/// The directives of a server block, in the order of the chain.
fn chain(out: &mut Text, settings: &Settings, around: &Surroundings, ips: &[IpAddr]) {
    let ips: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
    let mut bind = vec!["bind"];
    bind.extend(ips.iter().map(String::as_str));
    out.words(&bind);
    if settings.prometheus_port.is_some() {
        metrics(out, settings);
    }
    out.words(&["errors"]);
    if settings.verbose {
        out.words(&[
            "log",
            ".",
            "received DNS Request for \"{name}\" from \"{remote}:{port}\" with type {type}",
        ]);
    }
    if settings.round_robin {
        out.words(&["loadbalance"]);
    }
    let to = upstreams(settings, around);
    etcd(out, settings, !to.is_empty());
    // What completes an answer would be served from the cache to everybody.
    if settings.rcache > 0 && !settings.no_rec {
        cache(out, settings);
    }
    forward(out, settings, &to);
}

fn metrics(out: &mut Text, settings: &Settings) {
    let port = settings.prometheus_port.unwrap_or_default();
    // As Go does, on all addresses.
    out.block(&["prometheus", &format!(":{port}")], |out| {
        if settings.prometheus_path != "/metrics" {
            out.words(&["path", &settings.prometheus_path]);
        }
        let (namespace, subsystem) = (
            &settings.prometheus_namespace,
            &settings.prometheus_subsystem,
        );
        out.words(&["names", "skydns", namespace, subsystem]);
    });
}

fn etcd(out: &mut Text, settings: &Settings, can_forward: bool) {
    let zones = ["etcd", &settings.domain];
    out.block(&zones, |out| {
        out.words(&["path", &settings.path_prefix]);
        let mut endpoint = vec!["endpoint"];
        endpoint.extend(settings.machines.iter().map(String::as_str));
        out.words(&endpoint);
        if let Some(user) = &settings.username {
            out.words(&["credentials", user, &format!("{{${PASSWORD}}}")]);
        }
        let files = [&settings.tls_pem, &settings.tls_key, &settings.ca_cert];
        let files: Vec<&str> = files.into_iter().flatten().map(String::as_str).collect();
        if !files.is_empty() {
            let mut tls = vec!["tls"];
            tls.extend(files);
            out.words(&tls);
        }
        // SkyDNS was built for the v2 store, its heirs write to the v3 store.
        out.words(&["api", if settings.etcd3 { "v3" } else { "auto" }]);
        out.words(&["answers", "skydns"]);
        out.words(&["ttl", &settings.ttl.to_string()]);
        out.words(&["min-ttl", &settings.min_ttl.to_string()]);
        out.words(&["priority", &settings.priority.to_string()]);
        if let Some(hostmaster) = &settings.hostmaster {
            out.words(&["hostmaster", hostmaster]);
        }
        if let Some(local) = &settings.local {
            out.words(&["local", local]);
        }
        out.words(&["ndots", &settings.ndots.to_string()]);
        out.words(&["completion-ttl", &settings.rcache_ttl.to_string()]);
        if settings.stubzones {
            out.words(&["stubzones", &timeout(settings), order(settings)]);
        }
        // Without anybody to ask, SkyDNS answers SERVFAIL as well.
        if settings.no_rec || !can_forward {
            out.words(&["no-rec"]);
        }
    });
}

/// Answers of nameservers alone are kept: what etcd says is in memory anyway, and its TTLs are its own.
fn cache(out: &mut Text, settings: &Settings) {
    let (entries, ttl) = (settings.rcache.to_string(), settings.rcache_ttl.to_string());
    out.block(&["order"], |out| out.words(&["cache", "after", "etcd"]));
    out.block(&["cache", &ttl], |out| {
        out.words(&["success", &entries, &ttl, "0"]);
        out.words(&["denial", &entries, &ttl, "0"]);
    });
}

fn forward(out: &mut Text, settings: &Settings, to: &[String]) {
    let mut line = vec!["forward", "."];
    line.extend(to.iter().map(String::as_str));
    if to.is_empty() {
        return;
    }
    out.block(&line, |out| {
        out.words(&["policy", order(settings)]);
        out.words(&["read_timeout", &timeout(settings)]);
    });
}

fn order(settings: &Settings) -> &'static str {
    match settings.ns_rotate {
        true => "round_robin",
        false => "sequential",
    }
}

fn timeout(settings: &Settings) -> String {
    format!("{}ms", settings.read_timeout.as_millis())
}

/// Whom other names are asked of. A resolv.conf that leads back to ourselves would lead around in circles.
fn upstreams(settings: &Settings, around: &Surroundings) -> Vec<String> {
    let text = |servers: &[SocketAddr]| servers.iter().map(SocketAddr::to_string).collect();
    if !settings.nameservers.is_empty() {
        return text(&settings.nameservers);
    }
    let own = addresses(settings, around);
    let is_own = |server: &SocketAddr| {
        own.iter().any(|own| {
            own.port() == server.port()
                && (own.ip() == server.ip()
                    || own.ip().is_unspecified() && server.ip().is_loopback())
        })
    };
    let words = around.resolv_conf.iter().flat_map(|text| text.lines());
    let servers: Vec<SocketAddr> = words.filter_map(resolv_line).collect();
    let others: Vec<SocketAddr> = servers.iter().filter(|s| !is_own(s)).copied().collect();
    match others.len() == servers.len() {
        true if !others.is_empty() => vec![RESOLV_CONF.to_owned()],
        _ => text(&others),
    }
}

fn resolv_line(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_ascii_whitespace();
    let is_server = words.next() == Some("nameserver");
    let address = words.next().filter(|_| is_server)?;
    let address = address.split_once('%').map_or(address, |(ip, _)| ip);
    Some(SocketAddr::new(address.parse().ok()?, 53))
}

/// A Dnsfile being written.
#[derive(Default)]
struct Text {
    text: String,
    depth: usize,
}

impl Text {
    fn line(&mut self, line: &str) {
        let indent = self.depth * 4;
        // Writing into a String cannot fail.
        writeln!(self.text, "{:indent$}{line}", "").ok();
    }

    fn words(&mut self, words: &[&str]) {
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        self.line(&words.join(" "));
    }

    fn block(&mut self, words: &[&str], inside: impl FnOnce(&mut Text)) {
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        self.line(&format!("{} {{", words.join(" ")));
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        self.line("}");
    }
}

/// A word as the lexer reads it back.
fn quote(word: &str) -> String {
    let is_plain = !word.is_empty()
        && !word.contains(|c: char| c.is_whitespace() || matches!(c, '#' | '"'))
        && !matches!(word, "{" | "}" | "{}");
    match is_plain {
        true => word.to_owned(),
        false => format!("\"{}\"", word.replace('"', "\\\"")),
    }
}
