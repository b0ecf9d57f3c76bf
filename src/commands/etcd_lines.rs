//! The `etcd` lines of a Dnsfile as the commands need them: which zones, which server answers them, which cluster.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use skein_plugins::etcd::{Credentials, TlsFiles};
use skein_plugins::kit::dnsfile::{self, Directive, Dnsfile, FILE_OCTETS_MAX, ServerBlock, System};
use skein_plugins::kit::options::parse_duration;
use skein_plugins::kit::zones::{Zone, parse_key, parse_zones};

use super::cluster::FromFile;

/// One `etcd` line.
#[derive(Clone, Default)]
pub(crate) struct EtcdLine {
    /// Its zones, as names with their last dot.
    pub(crate) zones: Vec<String>,
    /// Where its server block listens, as seen from this machine.
    pub(crate) server: Option<SocketAddr>,
    /// Where the keys are.
    pub(crate) cluster: FromFile,
    /// The other options, as they are written.
    options: Vec<Vec<String>>,
}

impl EtcdLine {
    /// Whether an option is written.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options
            .iter()
            .any(|words| words.first().is_some_and(|word| word == option))
    }

    /// An option's first argument.
    pub(crate) fn word(&self, option: &str) -> Option<&str> {
        let words = self
            .options
            .iter()
            .find(|words| words.first().is_some_and(|word| word == option));
        words.and_then(|words| words.get(1)).map(String::as_str)
    }

    /// An option's time in seconds.
    pub(crate) fn seconds(&self, option: &str) -> Option<u32> {
        let duration: Duration = parse_duration(self.word(option)?).ok()?;
        Some(u32::try_from(duration.as_secs()).unwrap_or(u32::MAX))
    }
}

/// Reads a Dnsfile. The error says what to do.
pub(crate) fn read(path: &Path) -> Result<Dnsfile, String> {
    let name = path.display();
    let text = match path == Path::new("-") {
        true => {
            let mut text = Vec::new();
            let input = std::io::stdin().lock().take(FILE_OCTETS_MAX as u64);
            { input }.read_to_end(&mut text).map(|_| text)
        }
        false => std::fs::read(path),
    };
    let text = text.map_err(|error| format!("cannot read {name}: {error}"))?;
    let text = String::from_utf8_lossy(&text);
    dnsfile::parse(&name.to_string(), &text, &System)
        .map_err(|_| format!("{name} has errors; run `skeindns check --conf {name}`"))
}

/// The `etcd` lines of a Dnsfile, in its order. `port` is that of keys without one.
pub(crate) fn of(file: &Dnsfile, folder: &Path, port: u16) -> Vec<EtcdLine> {
    let mut found = Vec::new();
    for block in &file.blocks {
        for directive in block.directives.iter().filter(|d| d.name.text == "etcd") {
            found.push(line(block, directive, folder, port));
        }
    }
    found
}

fn line(block: &ServerBlock, directive: &Directive, folder: &Path, port: u16) -> EtcdLine {
    let keys = block.keys.iter();
    let keys: Vec<_> = keys
        .filter_map(|key| parse_key(&key.text, port).ok())
        .flatten()
        .collect();
    let arguments = directive.arguments.iter();
    let zones: Vec<Zone> = match directive.arguments.is_empty() {
        true => keys.iter().map(|key| key.zone.clone()).collect(),
        false => arguments
            .filter_map(|word| parse_zones(&word.text).ok())
            .flatten()
            .collect(),
    };
    let root = block.directives.iter().find(|d| d.name.text == "root");
    let root = root.and_then(|d| d.arguments.first());
    let folder = root.map_or_else(|| folder.to_owned(), |root| folder.join(&root.text));
    let mut line = EtcdLine {
        zones: zones.into_iter().map(|zone| zone.text).collect(),
        server: keys
            .first()
            .map(|key| SocketAddr::new(address(block), key.port)),
        ..EtcdLine::default()
    };
    for words in directive.block.iter().flatten() {
        let words: Vec<&str> = words.words.iter().map(|word| word.text.as_str()).collect();
        option(&mut line, &words, &folder);
    }
    line
}

fn option(line: &mut EtcdLine, words: &[&str], folder: &Path) {
    let file = |name: &str| -> PathBuf { folder.join(name) };
    match words {
        ["endpoint", urls @ ..] => {
            let urls = urls.iter().map(|url| (*url).to_owned());
            line.cluster.endpoints.extend(urls);
        }
        ["path", path] => line.cluster.path = Some((*path).to_owned()),
        ["credentials", user, password] => {
            line.cluster.credentials = Some(Credentials {
                user: (*user).to_owned(),
                password: (*password).to_owned(),
            });
        }
        ["tls", files @ ..] => {
            let (ca, identity) = match files {
                [ca] => (Some(file(ca)), None),
                [cert, key] => (None, Some((file(cert), file(key)))),
                [cert, key, ca] => (Some(file(ca)), Some((file(cert), file(key)))),
                _ => (None, None),
            };
            line.cluster.tls = Some(TlsFiles { ca, identity });
        }
        // The store inside the server is reached like a cluster.
        ["embedded", ..] if line.cluster.endpoints.is_empty() => {
            line.cluster.endpoints = vec!["http://127.0.0.1:2379".into()];
        }
        ["listen", address] => line.cluster.endpoints = vec![format!("http://{address}")],
        _ => line
            .options
            .push(words.iter().map(|word| (*word).to_owned()).collect()),
    }
}

/// Where the block can be asked from this machine: the first address of `bind`, else loopback.
fn address(block: &ServerBlock) -> IpAddr {
    let bind = block.directives.iter().find(|d| d.name.text == "bind");
    let words = bind.into_iter().flat_map(|d| &d.arguments);
    let addresses = words.filter_map(|word| word.text.parse::<IpAddr>().ok());
    let mut addresses = addresses.filter(|address| !address.is_unspecified());
    addresses.next().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etcd_line_says_where_everything_is() {
        let text = "example.org:1053 10.0.0.0/24 {\n bind 127.0.0.2\n root /srv\n etcd {\n  endpoint http://192.0.2.1:2379 192.0.2.2\n  \
                    path a/b\n  subtree off\n  tls cert.pem key.pem ca.pem\n  credentials u p\n  min-lease-ttl 5s\n  fallthrough\n }\n}\n\
                    . {\n etcd skydns.local\n forward . 192.0.2.9\n}\n";
        let Ok(file) = dnsfile::parse("Dnsfile", text, &System) else {
            panic!("it parses");
        };
        let lines = of(&file, Path::new("/etc"), 53);
        let [first, second] = &lines[..] else {
            panic!("two lines")
        };
        assert_eq!(first.zones, ["example.org.", "0.0.10.in-addr.arpa."]);
        assert_eq!(first.server, "127.0.0.2:1053".parse().ok());
        assert_eq!(first.cluster.endpoints.len(), 2);
        assert_eq!(first.cluster.path.as_deref(), Some("a/b"));
        assert_eq!(first.word("subtree"), Some("off"));
        assert_eq!(first.seconds("min-lease-ttl"), Some(5));
        assert!(first.has("fallthrough") && !second.has("fallthrough"));
        let tls = first.cluster.tls.as_ref().expect("it is written");
        assert_eq!(tls.ca.as_deref(), Some(Path::new("/srv/ca.pem")));
        assert_eq!(second.zones, ["skydns.local."]);
        assert_eq!(second.server, "127.0.0.1:53".parse().ok());
    }
}
