//! [`Settings`]: everything that can be set, and [`FIELDS`], the one table of it. Flags, variables and the object in etcd are read by this
//! table, the usage text is printed from it, and a test holds docs/skydns/configuration.md against it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use skein_plugins::etcd::parse_endpoint;
use skein_plugins::kit::options::parse_duration;
use skein_plugins::kit::wire::Name;

/// What SkyDNS calls its configuration, every source merged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    pub(super) dns_addr: SocketAddr,
    pub(super) systemd: bool,
    /// In lower case, with the dot at the end.
    pub(super) domain: String,
    pub(super) local: Option<String>,
    /// As written; none is `hostmaster` in the domain.
    pub(super) hostmaster: Option<String>,
    pub(super) dnssec: Option<String>,
    pub(super) round_robin: bool,
    pub(super) ns_rotate: bool,
    pub(super) nameservers: Vec<SocketAddr>,
    pub(super) no_rec: bool,
    pub(super) read_timeout: Duration,
    pub(super) priority: u16,
    pub(super) ttl: u32,
    pub(super) min_ttl: u32,
    pub(super) scache: u32,
    pub(super) rcache: u32,
    pub(super) rcache_ttl: u32,
    pub(super) ndots: u8,
    pub(super) machines: Vec<String>,
    pub(super) tls_key: Option<String>,
    pub(super) tls_pem: Option<String>,
    pub(super) ca_cert: Option<String>,
    pub(super) username: Option<String>,
    pub(super) password: Secret,
    pub(super) path_prefix: String,
    pub(super) etcd3: bool,
    pub(super) stubzones: bool,
    pub(super) verbose: bool,
    pub(super) prometheus_port: Option<u16>,
    pub(super) prometheus_path: String,
    pub(super) prometheus_namespace: String,
    pub(super) prometheus_subsystem: String,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            dns_addr: SocketAddr::from(([127, 0, 0, 1], 53)),
            systemd: false,
            domain: "skydns.local.".into(),
            local: None,
            hostmaster: None,
            dnssec: None,
            round_robin: true,
            ns_rotate: true,
            nameservers: Vec::new(),
            no_rec: false,
            read_timeout: Duration::from_secs(2),
            priority: 10,
            ttl: 3600,
            min_ttl: 60,
            scache: 10_000,
            rcache: 0,
            rcache_ttl: 60,
            ndots: 2,
            machines: vec!["http://127.0.0.1:2379".into()],
            tls_key: None,
            tls_pem: None,
            ca_cert: None,
            username: None,
            password: Secret::default(),
            path_prefix: "skydns".into(),
            etcd3: false,
            stubzones: false,
            verbose: false,
            prometheus_port: None,
            prometheus_path: "/metrics".into(),
            prometheus_namespace: "skydns".into(),
            prometheus_subsystem: "skydns".into(),
        }
    }
}

/// A password. Never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Secret {
    /// What it is; none is no password.
    pub(super) value: Option<String>,
    /// Whether it stands in ETCD_PASSWORD, where a Dnsfile finds it.
    pub(super) is_variable: bool,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.value.is_some() { "…" } else { "none" })
    }
}

/// What a value may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// `true` or `false`, in Go's spellings.
    Bool,
    /// Text.
    Text,
    /// A whole number.
    Number,
    /// `2s` as a flag, nanoseconds in JSON.
    Duration,
    /// Several, with commas; an array in JSON.
    List,
}

/// Something that can be set.
pub(super) struct Field {
    /// Its name in the object in etcd.
    pub(super) json: Option<&'static str>,
    /// Other spellings there.
    pub(super) also: &'static [&'static str],
    /// The flag, without its dash.
    pub(super) flag: Option<&'static str>,
    /// The variable.
    pub(super) variable: Option<&'static str>,
    /// What it may be.
    pub(super) kind: Kind,
    /// The default, as a reader wants to see it.
    pub(super) default: &'static str,
    /// What it is for.
    pub(super) help: &'static str,
    /// Sets it from text. The error says what to write instead.
    pub(super) set: fn(&mut Settings, &str) -> Result<(), String>,
}

impl Field {
    /// Whether `name` means this field in the object; case does not matter, as in Go.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let mut names = self.json.iter().chain(self.also);
        names.any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// A field with everything; rows below leave out what they do not have.
const fn field(
    names: (&'static str, &'static str, &'static str),
    also: &'static [&'static str],
    kind: Kind,
    default: &'static str,
    help: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> Field {
    const fn some(text: &'static str) -> Option<&'static str> {
        if text.is_empty() { None } else { Some(text) }
    }
    Field {
        json: some(names.0),
        also,
        flag: some(names.1),
        variable: some(names.2),
        kind,
        default,
        help,
        set,
    }
}

/// Every field: (JSON, flag, variable), other spellings in JSON, kind, default, meaning, how it is set.
pub(super) const FIELDS: &[Field] = &[
    field(
        ("dns_addr", "addr", "SKYDNS_ADDR"),
        &["dns-addr", "addr"],
        Kind::Text,
        "127.0.0.1:53",
        "address to answer on, UDP and TCP",
        |to, text| {
            to.dns_addr = match text {
                "" => Settings::default().dns_addr,
                text => address(text)?,
            };
            Ok(())
        },
    ),
    field(
        ("systemd", "systemd", "SKYDNS_SYSTEMD"),
        &[],
        Kind::Bool,
        "false",
        "answer on the sockets that systemd passes, instead of the address",
        |to, text| boolean(text).map(|value| to.systemd = value),
    ),
    field(
        ("domain", "domain", "SKYDNS_DOMAIN"),
        &[],
        Kind::Text,
        "skydns.local.",
        "the zone that is answered from etcd",
        |to, text| {
            to.domain = match text {
                "" => Settings::default().domain,
                text => name(text)?.to_lowercase(),
            };
            Ok(())
        },
    ),
    field(
        ("local", "local", ""),
        &[],
        Kind::Text,
        "none",
        "the name whose records local.dns.DOMAIN answers with",
        |to, text| {
            to.local = match text {
                "" => None,
                text => Some(name(text)?),
            };
            Ok(())
        },
    ),
    field(
        ("hostmaster", "hostmaster", ""),
        &[],
        Kind::Text,
        "hostmaster@DOMAIN",
        "mail address in the SOA record",
        |to, text| {
            to.hostmaster = match text {
                "" => None,
                text => {
                    name(&text.replace('@', "."))?;
                    Some(text.to_owned())
                }
            };
            Ok(())
        },
    ),
    field(
        ("dnssec", "dnssec", ""),
        &[],
        Kind::Text,
        "off",
        "base name of the key pair to sign with: BASE.key and BASE.private",
        |to, text| {
            // A form-encoded PUT turns the `+` of such names into a space.
            let text = text.replace(' ', "+");
            to.dnssec = (!text.is_empty()).then_some(text);
            Ok(())
        },
    ),
    field(
        ("round_robin", "round-robin", ""),
        &["round-robin"],
        Kind::Bool,
        "true",
        "another order of A and AAAA records in each answer",
        |to, text| boolean(text).map(|value| to.round_robin = value),
    ),
    field(
        ("ns_rotate", "ns-rotate", ""),
        &["ns-rotate"],
        Kind::Bool,
        "true",
        "begin with another nameserver each time; false: always with the first",
        |to, text| boolean(text).map(|value| to.ns_rotate = value),
    ),
    field(
        ("nameservers", "nameservers", "SKYDNS_NAMESERVERS"),
        &[],
        Kind::List,
        "/etc/resolv.conf",
        "servers to ask for all other names",
        |to, text| {
            to.nameservers = items(text).map(server).collect::<Result<_, _>>()?;
            match to.nameservers.len() {
                SERVERS_MAX.. => Err(format!("more than {} servers", SERVERS_MAX - 1)),
                _ => Ok(()),
            }
        },
    ),
    field(
        ("no_rec", "no-rec", ""),
        &["no-rec"],
        Kind::Bool,
        "false",
        "forward nothing for clients: SERVFAIL outside the domain",
        |to, text| boolean(text).map(|value| to.no_rec = value),
    ),
    field(
        ("read_timeout", "rtimeout", ""),
        &["read-timeout", "rtimeout"],
        Kind::Duration,
        "2s",
        "how long a nameserver may take",
        |to, text| {
            to.read_timeout = match duration(text)? {
                Duration::ZERO => Settings::default().read_timeout,
                time => time,
            };
            Ok(())
        },
    ),
    field(
        ("priority", "", ""),
        &[],
        Kind::Number,
        "10",
        "priority of services that have none",
        |to, text| {
            to.priority = match number(text, u16::MAX.into())? {
                0 => Settings::default().priority,
                value => u16::try_from(value).unwrap_or(u16::MAX),
            };
            Ok(())
        },
    ),
    field(
        ("ttl", "", ""),
        &[],
        Kind::Number,
        "3600",
        "TTL of records that have none, in seconds",
        |to, text| seconds(text, &mut to.ttl, Settings::default().ttl),
    ),
    field(
        ("min_ttl", "", ""),
        &["min-ttl"],
        Kind::Number,
        "60",
        "how long clients keep a denial, in seconds",
        |to, text| seconds(text, &mut to.min_ttl, Settings::default().min_ttl),
    ),
    field(
        ("scache", "scache", ""),
        &[],
        Kind::Number,
        "10000",
        "signatures that are kept",
        |to, text| count(text, &mut to.scache),
    ),
    field(
        ("rcache", "rcache", ""),
        &[],
        Kind::Number,
        "0",
        "answers of nameservers that are kept; 0 keeps none",
        |to, text| count(text, &mut to.rcache),
    ),
    field(
        ("rcache_ttl", "rcache-ttl", ""),
        &["rcache-ttl"],
        Kind::Number,
        "60",
        "how long they are kept at most, in seconds",
        |to, text| seconds(text, &mut to.rcache_ttl, Settings::default().rcache_ttl),
    ),
    field(
        ("ndot", "ndots", "SKYDNS_NDOTS"),
        &["ndots"],
        Kind::Number,
        "2",
        "labels that a name must have to be asked of a nameserver",
        |to, text| {
            to.ndots = match signed(text)? {
                ..=0 => Settings::default().ndots,
                value @ 1..=127 => u8::try_from(value).unwrap_or(127),
                _ => return Err("a name has 127 labels at most; write 2".into()),
            };
            Ok(())
        },
    ),
    field(
        ("", "machines", "ETCD_MACHINES"),
        &[],
        Kind::List,
        "http://127.0.0.1:2379",
        "URLs of the members of etcd",
        |to, text| {
            let urls: Vec<String> = items(text)
                .map(|url| parse_endpoint(url, "http"))
                .collect::<Result<_, _>>()?;
            if urls.is_empty() {
                to.machines = Settings::default().machines;
            } else {
                to.machines = urls;
            }
            Ok(())
        },
    ),
    field(
        ("", "tls-key", "ETCD_TLSKEY"),
        &[],
        Kind::Text,
        "none",
        "file with our key for etcd (PEM), with -tls-pem",
        |to, text| text_or_none(text, &mut to.tls_key),
    ),
    field(
        ("", "tls-pem", "ETCD_TLSPEM"),
        &[],
        Kind::Text,
        "none",
        "file with our certificate for etcd (PEM), with -tls-key",
        |to, text| text_or_none(text, &mut to.tls_pem),
    ),
    field(
        ("", "ca-cert", "ETCD_CACERT"),
        &[],
        Kind::Text,
        "the system's",
        "file with the CA that etcd's certificates are checked against (PEM)",
        |to, text| text_or_none(text, &mut to.ca_cert),
    ),
    field(
        ("", "username", "ETCD_USERNAME"),
        &[],
        Kind::Text,
        "none",
        "user of etcd",
        |to, text| text_or_none(text, &mut to.username),
    ),
    field(
        ("", "password", "ETCD_PASSWORD"),
        &[],
        Kind::Text,
        "none",
        "the user's password; every user of the machine sees flags, so better the variable",
        |to, text| {
            to.password.is_variable = false;
            text_or_none(text, &mut to.password.value)
        },
    ),
    field(
        ("", "path-prefix", "SKYDNS_PATH_PREFIX"),
        &["path_prefix", "path-prefix"],
        Kind::Text,
        "skydns",
        "first part of every key in etcd",
        |to, text| {
            let path = text.trim_matches('/');
            if path.is_empty() || path.split('/').any(str::is_empty) || path.contains(['\0', '{']) {
                return Err("write the first part of the keys, like skydns".into());
            }
            to.path_prefix = path.to_owned();
            Ok(())
        },
    ),
    field(
        ("", "etcd3", ""),
        &["etcd3"],
        Kind::Bool,
        "false",
        "use etcd's v3 API even where the v2 API is served",
        |to, text| boolean(text).map(|value| to.etcd3 = value),
    ),
    field(
        ("", "stubzones", ""),
        &["stubzones"],
        Kind::Bool,
        "false",
        "ask other servers for the zones below stub.dns.DOMAIN",
        |to, text| boolean(text).map(|value| to.stubzones = value),
    ),
    field(
        ("", "verbose", ""),
        &["verbose"],
        Kind::Bool,
        "false",
        "log every query",
        |to, text| boolean(text).map(|value| to.verbose = value),
    ),
    field(
        ("", "", "PROMETHEUS_PORT"),
        &[],
        Kind::Number,
        "none: no metrics",
        "port of the metrics, on all addresses",
        |to, text| {
            to.prometheus_port = match text {
                "" => None,
                text => match u16::try_from(number(text, u16::MAX.into())?).unwrap_or(0) {
                    0 => return Err("0 is no port; write one like 9153, or nothing".into()),
                    port => Some(port),
                },
            };
            Ok(())
        },
    ),
    field(
        ("", "", "PROMETHEUS_PATH"),
        &[],
        Kind::Text,
        "/metrics",
        "path of the metrics",
        |to, text| {
            if !text.starts_with('/') || text.contains([' ', '?', '#', '"', '{']) {
                return Err(format!("`{text}` is no path; write one like /metrics"));
            }
            to.prometheus_path = text.to_owned();
            Ok(())
        },
    ),
    field(
        ("", "", "PROMETHEUS_NAMESPACE"),
        &[],
        Kind::Text,
        "skydns",
        "first part of the metrics' names",
        |to, text| metric_part(text, &mut to.prometheus_namespace),
    ),
    field(
        ("", "", "PROMETHEUS_SUBSYSTEM"),
        &[],
        Kind::Text,
        "skydns",
        "second part of the metrics' names",
        |to, text| metric_part(text, &mut to.prometheus_subsystem),
    ),
];

/// Servers in a list, at most one less: what `forward` takes on a line, as CoreDNS does.
const SERVERS_MAX: usize = 16;

//--- Values ------------------------------------------------------------------------------------------

/// The spellings of Go's strconv.ParseBool.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("`{other}` is neither true nor false")),
    }
}

fn signed(text: &str) -> Result<i64, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("`{text}` is no whole number"))
}

fn number(text: &str, max: i64) -> Result<i64, String> {
    match signed(text)? {
        value if (0..=max).contains(&value) => Ok(value),
        value => Err(format!("{value} is not between 0 and {max}")),
    }
}

/// As SkyDNS has it, less than none is none.
fn count(text: &str, to: &mut u32) -> Result<(), String> {
    *to = match signed(text)? {
        ..=0 => 0,
        value => u32::try_from(value).map_err(|_| format!("{value} is not below 4294967296"))?,
    };
    Ok(())
}

/// As SkyDNS has it, zero is the default. RFC 2181 §8: a TTL has 31 bits.
fn seconds(text: &str, to: &mut u32, default: u32) -> Result<(), String> {
    *to = match number(text, i32::MAX.into())? {
        0 => default,
        value => value as u32,
    };
    Ok(())
}

fn duration(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_secs(60);
    let time = parse_duration(text).map_err(|what| format!("{what}; write one like 2s"))?;
    match time.is_zero() || (SHORTEST..=LONGEST).contains(&time) {
        true => Ok(time),
        false => Err(format!(
            "{time:?} is not between {SHORTEST:?} and {LONGEST:?}"
        )),
    }
}

/// The parts of a list, blanks around them taken away.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// `IP:PORT`, as SkyDNS checks it.
fn address(text: &str) -> Result<SocketAddr, String> {
    let advice = "write IP:PORT like 10.10.10.214:53 or [2001:db8::1]:53";
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("missing port in address {text}; {advice}"));
    };
    if !host.ends_with(']') && host.contains(':') {
        return Err(match text.parse::<IpAddr>() {
            Ok(_) => format!("missing port in address {text}; {advice}"),
            Err(_) => format!("too many colons in address {text}; {advice}"),
        });
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let ip: IpAddr = bare
        .unwrap_or(host)
        .parse()
        .map_err(|_| format!("bad IP address: {host}; {advice}"))?;
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(SocketAddr::new(ip, port)),
        _ => Err(format!("bad port number {port}; {advice}")),
    }
}

/// A nameserver; one without a port is asked on 53, which SkyDNS let fail on each query.
fn server(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    match bare.unwrap_or(text).parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, 53)),
        Err(_) => address(text),
    }
}

/// A domain name with its dot.
fn name(text: &str) -> Result<String, String> {
    Name::parse(text)
        .map_err(|error| format!("`{text}` is no domain name: {error}"))
        .and_then(|_| match text.contains([' ', '"', '{', '#']) {
            true => Err(format!("`{text}` is no domain name; write skydns.local")),
            false => Ok(format!("{}.", text.trim_end_matches('.'))),
        })
}

fn text_or_none(text: &str, to: &mut Option<String>) -> Result<(), String> {
    if text.contains(['\0', '\n', '\r']) {
        return Err("it has a line break or NUL in it".into());
    }
    // In a Dnsfile these stand for variables.
    if text.contains("{$") || text.contains("{%") {
        return Err("`{$` and `{%` cannot be written here".into());
    }
    *to = (!text.is_empty()).then(|| text.to_owned());
    Ok(())
}

/// A part of a metric's name; Prometheus allows letters, digits and `_`.
fn metric_part(text: &str, to: &mut String) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !text.chars().all(fits) || text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!(
            "`{text}` cannot be part of a metric's name; write letters, digits and _"
        ));
    }
    to.clear();
    to.push_str(text);
    Ok(())
}
