//! The table of settings: each is a flag, a variable and a key of the file. The command line is built from it, as is a test of the manual.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

const EXAMPLES: &str = "\
Examples:
  skeindns register --etcd http://192.0.2.201:2379,http://192.0.2.202:2379   keep this machine's names in etcd until stopped
  skeindns register --print                                                 show the keys and values, write nothing
  skeindns register --service web:80 --service _ssh._tcp:22                  services of this machine as well
  skeindns register --once --lease-ttl 0                                     write once, to stay
  kill -HUP $(pidof skeindns)                                               read the file and the services again

Every flag is also a variable (--lease-ttl is SKEIN_REGISTER_LEASE_TTL) and a key of /etc/skeindns/register.toml (lease-ttl = \"60s\").
A flag beats the variable, the variable beats the file.

Exit codes: 0 done, 1 cannot run, 2 usage, 3 etcd refuses, 4 the name is another machine's, 75 etcd was not there in time.";

/// How many values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One.
    One,
    /// Several: the flag repeated, or with commas.
    List,
    /// True or false; the flag alone is true.
    Switch,
}

/// A setting.
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What stands for its value in the help.
    pub(super) value: &'static str,
    /// Its default, for people.
    pub(super) default: &'static str,
    pub(super) help: &'static str,
    /// Whether it may be in the file.
    pub(super) in_file: bool,
}

const fn one(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        name,
        kind: Kind::One,
        value,
        default,
        help,
        in_file: true,
    }
}

const fn list(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        name,
        kind: Kind::List,
        value,
        default,
        help,
        in_file: true,
    }
}

const fn switch(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting {
        name,
        kind: Kind::Switch,
        value: "true|false",
        default,
        help,
        in_file: true,
    }
}

const fn flag_only(setting: Setting) -> Setting {
    Setting {
        in_file: false,
        ..setting
    }
}

impl Setting {
    /// Which file to read.
    pub(super) const CONFIG: Setting = flag_only(one(
        "config",
        "FILE",
        "/etc/skeindns/register.toml if it is there",
        "File with settings (TOML)",
    ));

    /// The values in a text: those of a list have commas between them.
    pub(super) fn split(&self, text: &str) -> Vec<String> {
        match self.kind {
            Kind::List => text
                .split(',')
                .map(str::trim)
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
                .collect(),
            Kind::One | Kind::Switch => vec![text.to_owned()],
        }
    }
}

/// All settings, in the order of the help.
pub(super) const SETTINGS: &[Setting] = &[
    Setting::CONFIG,
    list(
        "etcd",
        "URL,…",
        "ETCD_ENDPOINTS, ETCD_MACHINES, else http://127.0.0.1:2379",
        "URLs of the cluster's members",
    ),
    one(
        "etcd-api",
        "auto|v3|v2",
        "auto",
        "Which of etcd's interfaces; auto takes v3 where it is",
    ),
    one(
        "tls-ca",
        "FILE",
        "ETCD_CACERT, else the system's",
        "CA certificates to check the members against",
    ),
    one(
        "tls-cert",
        "FILE",
        "ETCD_TLSPEM",
        "Our certificate, with --tls-key",
    ),
    one("tls-key", "FILE", "ETCD_TLSKEY", "Our certificate's key"),
    one("username", "NAME", "ETCD_USERNAME", "User of etcd"),
    one(
        "password-file",
        "FILE",
        "ETCD_PASSWORD, else the unit's credential etcd-password",
        "File with the password",
    ),
    one(
        "path-prefix",
        "PATH",
        "skydns",
        "First part of every key; may have several segments",
    ),
    list(
        "domain",
        "NAME",
        "skydns.local",
        "Domain of the names; reverse records lead to the first",
    ),
    one(
        "hostname",
        "NAME",
        "first label of the system's host name",
        "This machine's name below the domain",
    ),
    one(
        "name",
        "NAME",
        "--hostname",
        "The same, but it may have several labels",
    ),
    list(
        "alias",
        "NAME",
        "none",
        "Further names, which lead to the first",
    ),
    one(
        "layout",
        "instances|single",
        "instances",
        "A key for each address below the name, or one key for one IPv4 address",
    ),
    list(
        "interface",
        "GLOB",
        "all but those of --exclude-interface",
        "Interfaces whose addresses are taken",
    ),
    list(
        "exclude-interface",
        "GLOB",
        "lo docker* br-* veth* virbr* cni* flannel* cali* tun* wg*",
        "Interfaces that are left out as well",
    ),
    list(
        "address",
        "IP",
        "those of the interfaces",
        "These addresses and no others",
    ),
    one("family", "4|6|both", "both", "Which addresses"),
    list("cidr", "NET", "all", "Only addresses in these networks"),
    list(
        "exclude-cidr",
        "NET",
        "link-local, loopback and multicast",
        "Networks that are left out as well",
    ),
    switch(
        "ipv6-temporary",
        "false",
        "Take temporary IPv6 addresses too",
    ),
    switch(
        "primary-only",
        "false",
        "Only the address that the default route uses, one of each family",
    ),
    one(
        "lease-ttl",
        "DURATION",
        "60s",
        "The records' life after this machine died (10s to 24h; 0 with --once: they stay)",
    ),
    one(
        "keepalive",
        "DURATION",
        "a third of --lease-ttl",
        "How often the lease is renewed",
    ),
    one(
        "ttl",
        "DURATION",
        "30s, at most half of --lease-ttl",
        "DNS TTL of the records",
    ),
    switch("reverse", "true", "Write reverse records (PTR)"),
    one(
        "settle",
        "DURATION",
        "2s",
        "Wait after a change of addresses before it is written",
    ),
    one(
        "rescan",
        "DURATION",
        "60s",
        "How often everything is compared again",
    ),
    one(
        "on-conflict",
        "join|takeover|fail",
        "join",
        "When another machine has the name: add to it, replace it, or give up",
    ),
    one(
        "ptr-conflict",
        "keep|replace|fail",
        "keep",
        "When another machine has our address's reverse record",
    ),
    one(
        "instance-id",
        "TEXT",
        "hash of /etc/machine-id",
        "Which records are this machine's",
    ),
    list(
        "service",
        "NAME:PORT[:PRIO[:WEIGHT]]",
        "none",
        "Services of this machine (SRV)",
    ),
    one(
        "service-dir",
        "FOLDER",
        "none",
        "Folder of JSON files with further services",
    ),
    switch(
        "nameserver",
        "false",
        "This machine is a name server of the domain (NS)",
    ),
    one("text", "TEXT", "none", "Text of the name (TXT)"),
    one("group", "NAME", "none", "Group of the name's records"),
    one(
        "wait",
        "DURATION",
        "0, for ever",
        "How long to try at the start before giving up with exit code 75",
    ),
    one(
        "on-exit",
        "remove|keep|keep-forever",
        "remove",
        "What becomes of the records when the agent stops",
    ),
    one(
        "metrics",
        "ADDRESS:PORT",
        "off",
        "Serve metrics for Prometheus there",
    ),
    one(
        "status-file",
        "FILE",
        "off",
        "Write the state there as JSON, whenever it changes",
    ),
    flag_only(switch("once", "false", "Write, and exit")),
    flag_only(switch(
        "print",
        "false",
        "Show the keys and values, write nothing",
    )),
];

/// Keep this machine's names and addresses in etcd.
#[derive(Debug, Default)]
pub(crate) struct Register {
    given: Vec<(&'static str, Vec<String>)>,
}

impl Register {
    /// The values of a flag that was given.
    pub(super) fn given(&self, name: &str) -> Option<&[String]> {
        let found = self.given.iter().find(|(given, _)| *given == name);
        found.map(|(_, values)| values.as_slice())
    }
}

impl FromArgMatches for Register {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Register, Error> {
        let mut register = Register::default();
        register.update_from_arg_matches(matches)?;
        Ok(register)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for setting in SETTINGS {
            if let Some(values) = matches.get_many::<String>(setting.name) {
                self.given.push((setting.name, values.cloned().collect()));
            }
        }
        Ok(())
    }
}

impl Args for Register {
    fn augment_args(command: Command) -> Command {
        let command = command.after_help(EXAMPLES);
        SETTINGS.iter().fold(command, |command, setting| {
            let arg = Arg::new(setting.name)
                .long(setting.name)
                .value_name(setting.value)
                .help(format!("{} [default: {}]", setting.help, setting.default));
            command.arg(match setting.kind {
                Kind::One => arg.action(ArgAction::Set),
                Kind::List => arg.action(ArgAction::Append).value_delimiter(','),
                Kind::Switch => arg
                    .action(ArgAction::Set)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true"),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Register::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::register::config::variable_of;

    #[test]
    fn the_manual_has_every_setting() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/skydns/register.md");
        let manual = std::fs::read_to_string(path).expect("the manual is there");
        let plain = |text: &str| text.replace('|', "\\|").replace('*', "\\*");
        for setting in SETTINGS {
            let flag = match setting.kind {
                Kind::Switch => format!("`--{}`", setting.name),
                _ => format!("`--{} {}`", setting.name, setting.value.replace('|', "\\|")),
            };
            let key = match setting.in_file {
                true => format!("`{}`", setting.name),
                false => "–".to_owned(),
            };
            let row = format!(
                "| {flag} | `{}` | {key} | {} | {} |",
                variable_of(setting.name),
                plain(setting.default),
                plain(setting.help)
            );
            assert!(manual.contains(&row), "the manual lacks this row:\n{row}");
        }
    }

    #[test]
    fn the_example_has_settings_that_there_are() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/register.toml");
        let example = std::fs::read_to_string(path).expect("the example is there");
        // Everything in it is commented out; without the signs it has to be a file that is accepted.
        let lines = example.lines().filter_map(|line| line.strip_prefix('#'));
        let lines: Vec<&str> = lines.filter(|line| !line.starts_with(' ')).collect();
        assert!(lines.len() > 15, "{lines:#?}");
        for line in lines {
            let (key, _) = line.split_once(" = ").expect("a key and its value");
            let known = SETTINGS
                .iter()
                .any(|setting| setting.in_file && setting.name == key);
            assert!(known, "{line}");
        }
    }
}
