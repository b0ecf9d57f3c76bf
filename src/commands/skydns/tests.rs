//! Every field from every source: what it takes, what it refuses and with which words.

use std::net::SocketAddr;
use std::time::Duration;

use super::dnsfile::{self, Surroundings};
use super::settings::{FIELDS, Field, Settings};
use super::{object, sources};

const KEY: &str = "/skydns/config";

fn from_flags(flags: &[&str]) -> Result<Settings, Vec<String>> {
    let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
    sources::read(&flags, |_| None).map(|(settings, _)| settings)
}

fn from_variables(variables: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
    let value = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name)?;
        Some(found.1.to_owned())
    };
    sources::read(&[], value).map(|(settings, _)| settings)
}

fn from_object(json: &str) -> Result<Settings, Vec<String>> {
    object::read(KEY, json.as_bytes(), &Settings::default()).map(|read| {
        assert_eq!(read.remarks, [""; 0], "{json}");
        read.settings
    })
}

fn remarks(json: &str) -> Vec<String> {
    object::read(KEY, json.as_bytes(), &Settings::default())
        .expect("it can be used")
        .remarks
}

fn named(name: &str) -> &'static Field {
    let is_it = |field: &&Field| [field.json, field.flag, field.variable].contains(&Some(name));
    FIELDS.iter().find(is_it).expect(name)
}

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect(text)
}

/// A field, a value as text, the same in JSON, and what comes of it.
type Row = (&'static str, &'static str, &'static str, Settings);

/// One row at least for each field; a test below sees to that.
fn rows() -> Vec<Row> {
    let mut rows = rows_of_the_object();
    rows.extend(rows_of_flags());
    rows
}

fn rows_of_the_object() -> Vec<Row> {
    vec![
        (
            "dns_addr",
            "10.10.10.214:53",
            r#""10.10.10.214:53""#,
            settings(|to| to.dns_addr = address("10.10.10.214:53")),
        ),
        (
            "dns_addr",
            "[2001:db8::1]:5353",
            r#""[2001:db8::1]:5353""#,
            settings(|to| to.dns_addr = address("[2001:db8::1]:5353")),
        ),
        ("systemd", "true", "true", settings(|to| to.systemd = true)),
        (
            "domain",
            "Example.ORG",
            r#""Example.ORG""#,
            settings(|to| to.domain = "example.org.".into()),
        ),
        (
            "domain",
            ".",
            r#"".""#,
            settings(|to| to.domain = ".".into()),
        ),
        (
            "local",
            "Host1.example.org",
            r#""Host1.example.org""#,
            settings(|to| to.local = Some("Host1.example.org.".into())),
        ),
        (
            "hostmaster",
            "admin@example.org",
            r#""admin@example.org""#,
            settings(|to| to.hostmaster = Some("admin@example.org".into())),
        ),
        (
            "dnssec",
            "K 008 00001",
            r#""K 008 00001""#,
            settings(|to| to.dnssec = Some("K+008+00001".into())),
        ),
        (
            "round_robin",
            "false",
            "false",
            settings(|to| to.round_robin = false),
        ),
        (
            "ns_rotate",
            "false",
            "false",
            settings(|to| to.ns_rotate = false),
        ),
        (
            "nameservers",
            "8.8.8.8:53, 192.0.2.1,[2001:db8::1]:5353",
            r#"["8.8.8.8:53", "192.0.2.1", "[2001:db8::1]:5353"]"#,
            settings(|to| {
                to.nameservers = ["8.8.8.8:53", "192.0.2.1:53", "[2001:db8::1]:5353"]
                    .map(address)
                    .to_vec();
            }),
        ),
        ("no_rec", "true", "true", settings(|to| to.no_rec = true)),
        (
            "read_timeout",
            "500ms",
            "500000000",
            settings(|to| to.read_timeout = Duration::from_millis(500)),
        ),
        ("priority", "20", "20", settings(|to| to.priority = 20)),
        ("ttl", "60", "60", settings(|to| to.ttl = 60)),
        ("ttl", "0", "0", Settings::default()),
        ("min_ttl", "30", "30", settings(|to| to.min_ttl = 30)),
        ("scache", "-1", "-1", settings(|to| to.scache = 0)),
        ("rcache", "1000", "1000", settings(|to| to.rcache = 1000)),
        ("rcache", "-5", "-5", Settings::default()),
        ("rcache_ttl", "10", "10", settings(|to| to.rcache_ttl = 10)),
        ("ndot", "1", "1", settings(|to| to.ndots = 1)),
        ("ndot", "-3", "-3", Settings::default()),
    ]
}

/// What the object does not have.
fn rows_of_flags() -> Vec<Row> {
    vec![
        (
            "machines",
            "http://192.0.2.1:2379,https://192.0.2.2",
            "",
            settings(|to| {
                to.machines = vec![
                    "http://192.0.2.1:2379".into(),
                    "https://192.0.2.2:2379".into(),
                ];
            }),
        ),
        (
            "ca-cert",
            "/etc/ca.pem",
            "",
            settings(|to| to.ca_cert = Some("/etc/ca.pem".into())),
        ),
        (
            "path-prefix",
            "/a/b/",
            "",
            settings(|to| to.path_prefix = "a/b".into()),
        ),
        ("etcd3", "true", "", settings(|to| to.etcd3 = true)),
        ("stubzones", "true", "", settings(|to| to.stubzones = true)),
        ("verbose", "true", "", settings(|to| to.verbose = true)),
        (
            "PROMETHEUS_PORT",
            "9153",
            "",
            settings(|to| to.prometheus_port = Some(9153)),
        ),
        (
            "PROMETHEUS_PATH",
            "/m",
            "",
            settings(|to| to.prometheus_path = "/m".into()),
        ),
        (
            "PROMETHEUS_NAMESPACE",
            "a_1",
            "",
            settings(|to| to.prometheus_namespace = "a_1".into()),
        ),
        (
            "PROMETHEUS_SUBSYSTEM",
            "dns",
            "",
            settings(|to| to.prometheus_subsystem = "dns".into()),
        ),
    ]
}

#[test]
fn every_field_from_every_source() {
    for (name, text, json, expected) in rows() {
        let field = named(name);
        if let Some(flag) = field.flag {
            for words in [
                vec![format!("-{flag}={text}")],
                vec![format!("--{flag}={text}")],
            ] {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                assert_eq!(from_flags(&words).as_ref(), Ok(&expected), "{words:?}");
            }
            if text != "true" && text != "false" {
                let words = [&format!("-{flag}"), text];
                assert_eq!(from_flags(&words).as_ref(), Ok(&expected), "{words:?}");
            }
        }
        if let Some(variable) = field.variable {
            let read = from_variables(&[(variable, text)]);
            assert_eq!(read.as_ref(), Ok(&expected), "{variable}={text}");
        }
        if let Some(known) = field.json {
            let names = std::iter::once(&known).chain(field.also);
            for name in names {
                for name in [name.to_string(), name.to_uppercase()] {
                    let object = format!("{{\"{name}\": {json}}}");
                    assert_eq!(from_object(&object).as_ref(), Ok(&expected), "{object}");
                }
            }
            // Numbers and truth values in quotes, and lists with commas: people wrote them, and SkyDNS did not start.
            let object = format!("{{\"{known}\": \"{text}\"}}");
            assert_eq!(from_object(&object).as_ref(), Ok(&expected), "{object}");
        }
    }
}

#[test]
fn every_field_has_a_row() {
    let rows = rows();
    let own_test = ["tls-key", "tls-pem", "username", "password"];
    for field in FIELDS {
        let names = [field.json, field.flag, field.variable];
        let has_row = rows.iter().any(|(name, ..)| names.contains(&Some(name)));
        let has_test = own_test.iter().any(|name| names.contains(&Some(name)));
        assert!(has_row || has_test, "{names:?}");
    }
}

#[test]
fn what_belongs_together() {
    let both = from_flags(&["-tls-key", "k", "-tls-pem", "c"]).expect("both are there");
    assert_eq!(both.tls_key.as_deref(), Some("k"));
    assert_eq!(both.tls_pem.as_deref(), Some("c"));
    let one = from_variables(&[("ETCD_TLSKEY", "k")]).expect_err("one is missing");
    assert!(one[0].contains("give both or none"), "{one:?}");
    let user = from_flags(&["-username", "u"]).expect_err("no password");
    assert!(user[0].contains("ETCD_PASSWORD"), "{user:?}");
    let user = from_variables(&[("ETCD_USERNAME", "u"), ("ETCD_PASSWORD", "geheim")]);
    let user = user.expect("both are there");
    assert_eq!(user.username.as_deref(), Some("u"));
    assert_eq!(user.password.value.as_deref(), Some("geheim"));
    assert!(!format!("{user:?}").contains("geheim"));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let check_flags = |flags: &[&str], expected: &[&str]| {
        assert_eq!(
            from_flags(flags).expect_err("it is wrong"),
            expected,
            "{flags:?}"
        );
    };
    let advice = "write IP:PORT like 10.10.10.214:53 or [2001:db8::1]:53";
    check_flags(
        &["-addr", "dns:53"],
        &[&format!("-addr: bad IP address: dns; {advice}")],
    );
    check_flags(
        &["-addr", "127.0.0.1:0"],
        &[&format!("-addr: bad port number 0; {advice}")],
    );
    check_flags(
        &["-addr", "::1"],
        &[&format!("-addr: missing port in address ::1; {advice}")],
    );
    check_flags(
        &["-dns_addr", "127.0.0.1:53", "-verbos"],
        &[
            "-dns_addr: there is no such flag; write -addr",
            "-verbos: there is no such flag; did you mean -verbose?",
        ],
    );
    check_flags(
        &["-discover"],
        &[
            "-discover: there is no such flag; was removed from SkyDNS; name all members with -machines",
        ],
    );
    check_flags(
        &["verbose", "-rtimeout"],
        &[
            "`verbose`: unexpected argument; did you mean -verbose?",
            "-rtimeout: needs a value: how long a nameserver may take",
        ],
    );
    check_flags(
        &["-systemd=perhaps"],
        &["-systemd: `perhaps` is neither true nor false"],
    );
    assert_eq!(
        from_variables(&[("SKYDNS_NDOTS", "two"), ("PROMETHEUS_PORT", "70000")]).expect_err("both"),
        [
            "SKYDNS_NDOTS: `two` is no whole number",
            "PROMETHEUS_PORT: 70000 is not between 0 and 65535",
        ]
    );
    let check = |json: &str, expected: &[&str]| {
        assert_eq!(
            from_object(json).expect_err("it is wrong"),
            expected,
            "{json}"
        );
    };
    check(
        "{\n  \"ttl\": [],\n  \"no_rec\": 1, \"domain\": 7}",
        &[
            "/skydns/config:2:10: ttl: is an array, but has to be a number; write one like 60",
            "/skydns/config:3:13: no_rec: is a number, but has to be true or false; write true",
            "/skydns/config:3:26: domain: is a number, but has to be a text; write it in quotes",
        ],
    );
    check(
        r#"{"ttl": 60.5, "read_timeout": 2}"#,
        &[
            "/skydns/config:1:9: ttl: 60.5 is no whole number; write one like 60",
            "/skydns/config:1:31: read_timeout: 2 counts nanoseconds; write 2000000000 or \"2s\" for two seconds",
        ],
    );
    check(
        r#"{"nameservers": ["8.8.8.8:53", 5], "dns_addr": "10.0.0.1"}"#,
        &[
            "/skydns/config:1:17: nameservers: 5 is no text; write [\"8.8.8.8:53\"]",
            &format!("/skydns/config:1:48: dns_addr: missing port in address 10.0.0.1; {advice}"),
        ],
    );
    let example = "write an object like {\"dns_addr\":\"127.0.0.1:53\"}";
    check(
        "{\"ttl\": 60,}",
        &[&format!(
            "/skydns/config:1:12: failed to unmarshal config: trailing comma; {example}"
        )],
    );
    let text = from_object("[1]").expect_err("no object");
    assert!(
        text[0].starts_with("/skydns/config:1:1: failed to unmarshal config"),
        "{text:?}"
    );
    assert!(object::read(KEY, b"{\"ttl\":\xff}", &Settings::default()).is_err());
}

#[test]
fn what_has_no_effect_is_named_and_the_rest_counts() {
    assert_eq!(
        remarks(
            r#"{"ndto": 3, "tls-key": "x", "PROMETHEUS_PORT": 1, "etcd3": true, "foo": {"a": [1]}, "ttl": 1, "ttl": 2}"#
        ),
        [
            "/skydns/config:1:3: ndto: there is no such field, so it has no effect; did you mean ndot?",
            "/skydns/config:1:14: tls-key: is not read from here, and has no effect; use the flag -tls-key",
            "/skydns/config:1:30: PROMETHEUS_PORT: is not read from here, and has no effect; use the variable PROMETHEUS_PORT",
            "/skydns/config:1:52: etcd3: which API is used is decided before this object can be read; start with -etcd3 instead",
            "/skydns/config:1:67: foo: there is no such field, so it has no effect; remove it",
            "/skydns/config:1:102: ttl: stands here twice; the last one counts",
        ]
    );
}

#[test]
fn the_object_wins_over_flags_and_flags_over_variables() {
    let flags: Vec<String> = [
        "-addr",
        "192.0.2.2:53",
        "-ndots=3",
        "-nameservers=192.0.2.9:53",
    ]
    .map(str::to_owned)
    .to_vec();
    let variable = |name: &str| match name {
        "SKYDNS_ADDR" => Some("192.0.2.1:53".to_owned()),
        "SKYDNS_DOMAIN" => Some("a.example".to_owned()),
        // Empty is not set.
        "SKYDNS_PATH_PREFIX" => Some(String::new()),
        _ => None,
    };
    let (base, _) = sources::read(&flags, variable).expect("all is well");
    assert_eq!(base.dns_addr, address("192.0.2.2:53"));
    assert_eq!(base.domain, "a.example.");
    assert_eq!(base.path_prefix, "skydns");
    let json = br#"{"dns_addr": "192.0.2.3:53", "ndot": null, "nameservers": null}"#;
    let merged = object::read(KEY, json, &base)
        .expect("all is well")
        .settings;
    assert_eq!(merged.dns_addr, address("192.0.2.3:53"));
    assert_eq!(merged.domain, "a.example.");
    assert_eq!(merged.ndots, 3);
    assert_eq!(merged.nameservers, []);
}

#[test]
fn resolv_conf_stands_in_for_nameservers_unless_it_leads_back() {
    let forward = |settings: &Settings, resolv_conf: Option<&str>| {
        let around = Surroundings {
            resolv_conf: resolv_conf.map(str::to_owned),
            sockets: Vec::new(),
        };
        let text = dnsfile::write(settings, &around);
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("forward . "));
        line.map(|line| line.trim_end_matches(" {").to_owned())
    };
    let default = Settings::default();
    let check = |resolv_conf: Option<&str>, expected: Option<&str>| {
        let found = forward(&default, resolv_conf);
        assert_eq!(found.as_deref(), expected, "{resolv_conf:?}");
    };
    check(Some("nameserver 192.0.2.1\n"), Some("/etc/resolv.conf"));
    check(
        Some("search x\nnameserver 127.0.0.1\nnameserver 192.0.2.1\n"),
        Some("192.0.2.1:53"),
    );
    check(Some("nameserver 127.0.0.1"), None);
    check(Some(""), None);
    check(None, None);
}

#[test]
fn no_secret_stands_in_the_dnsfile() {
    let secret = from_flags(&["-username", "u", "-password", "geheim"]).expect("both are there");
    let text = dnsfile::write(&secret, &Surroundings::default());
    assert!(!text.contains("geheim"), "{text}");
    assert!(text.contains("credentials u {$ETCD_PASSWORD}"), "{text}");
}

#[test]
fn the_document_has_every_field() {
    let document = include_str!("../../../docs/skydns/configuration.md");
    for field in FIELDS {
        let code = |name: Option<&str>, dash: &str| {
            name.map_or_else(|| "–".to_owned(), |name| format!("`{dash}{name}`"))
        };
        let row = format!(
            "| {} | {} | {} | {} |",
            code(field.json, ""),
            code(field.flag, "-"),
            code(field.variable, ""),
            field.default
        );
        assert!(
            document.contains(&row),
            "docs/skydns/configuration.md lacks `{row}`"
        );
    }
}
