//! The command line: ours, and CoreDNS's spellings of it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands;

const EXAMPLES: &str = "\
Examples:
  skeindns                              serve what ./Dnsfile says
  skeindns --conf /etc/skeindns/Dnsfile serve another one
  skeindns check --conf Dnsfile         say everything that is wrong with it, start nothing
  skeindns --conf - < Dnsfile           read it from standard input
  kill -HUP $(pidof skeindns)           read the Dnsfile again; if it is wrong nothing changes

A Dnsfile to begin with, answering names from etcd and forwarding all others:
  . {
      errors
      log
      cache
      etcd skydns.local { endpoint http://127.0.0.1:2379 }
      forward . /etc/resolv.conf
  }

CoreDNS's spellings -conf, -dns.port, -p, -pidfile, -quiet, -version and -plugins work too.";

/// A DNS server: a chain of plugins from a Dnsfile, with names that come live from etcd.
#[derive(Parser, Debug)]
#[command(
    name = "skeindns",
    about,
    long_about = "A DNS server. A Dnsfile, which reads like CoreDNS's Corefile, says which plugins answer which zones on which ports; \
                  a Corefile of the plugins that `skeindns plugins` lists works unchanged.",
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = false
)]
pub(crate) struct Cli {
    /// The Dnsfile; `-` or `stdin` reads standard input. Without it ./Dnsfile, and if there is none, whoami and log on every name.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) conf: Option<PathBuf>,

    /// Port of server blocks that name none.
    // Global arguments share their names with those of subcommands: `service put` has a port of its own.
    #[arg(
        id = "dns.port",
        long = "dns.port",
        short = 'p',
        value_name = "PORT",
        default_value_t = 53,
        global = true
    )]
    pub(crate) port: u16,

    /// Write the process's number into this file, and remove it at the end.
    #[arg(long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,

    /// Print nothing at the start.
    #[arg(long)]
    pub(crate) quiet: bool,

    /// Print the version.
    #[arg(long)]
    pub(crate) version: bool,

    /// Print the names of the plugins.
    #[arg(long)]
    pub(crate) plugins: bool,

    /// Threads that answer queries; one per processor that we may use.
    #[arg(long, value_name = "NUMBER", env = "SKEINDNS_WORKERS", hide = true,
          value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) workers: Option<u8>,

    /// What to do instead of serving.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What the binary does beside serving.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Say everything that is wrong with a Dnsfile and show each chain as it will run; start nothing.
    ///
    /// Reads every file that the Dnsfile names, resolves no host name, opens no socket. Exit code 0, or 1 with every error.
    Check,
    /// List the plugins, outermost first, with what they do.
    Plugins,
    /// Put, show, delete, watch, export and import records in etcd or the embedded store.
    Service(Box<commands::Service>),
    /// Ask a server for what etcd says it should answer, and compare.
    Verify(Box<commands::Verify>),
    /// Say why it does not work and what to do: this machine, the cluster, the keys, the server.
    Doctor(Box<commands::Doctor>),
    /// Move keys from etcd's v2 store into its v3 store.
    Migrate(Box<commands::Migrate>),
    /// Serve a domain from etcd as SkyDNS did: its flags, its variables, its object in etcd.
    ///
    /// Its own `-help` lists the flags. The same happens when this binary is called by the name `skydns`.
    #[command(disable_help_flag = true)]
    Skydns {
        /// SkyDNS's flags.
        #[arg(
            value_name = "FLAGS",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        flags: Vec<OsString>,
    },
    /// Keep this machine's names and addresses in etcd, for as long as it lives.
    Register(Box<commands::Register>),
    /// Print the version.
    Version,
}

impl Cli {
    /// Reads the command line of this process; ends it with help or a message where there is nothing to do.
    pub(crate) fn read() -> Cli {
        let arguments: Vec<OsString> = std::env::args_os().map(respell).collect();
        let checking = arguments
            .iter()
            .skip(1)
            .any(|word| word == "verify" || word == "doctor");
        Cli::try_parse_from(arguments).unwrap_or_else(|error| {
            error.print().ok();
            // 2 is `verify`'s word for a server that cannot be reached; sysexits.h has 64 for usage.
            std::process::exit(match error.exit_code() {
                2 if checking => 64,
                code => code,
            })
        })
    }
}

/// Turns CoreDNS's `-conf` into `--conf`.
fn respell(argument: OsString) -> OsString {
    const WORDS: [&str; 7] = [
        "conf", "dns.port", "p", "pidfile", "quiet", "version", "plugins",
    ];
    let Some(text) = argument.to_str() else {
        return argument;
    };
    let Some(rest) = text.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else {
        return argument;
    };
    let (word, value) = match rest.split_once('=') {
        Some((word, value)) => (word, Some(value)),
        None => (rest, None),
    };
    match (WORDS.contains(&word), word, value) {
        (false, ..) | (true, "p", _) => argument,
        // Go's flags of this kind take a value, if behind `=`.
        (true, "quiet" | "version" | "plugins", Some("true" | "1" | "t")) => {
            format!("--{word}").into()
        }
        (true, _, _) => format!("-{text}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        let words = std::iter::once("skeindns").chain(line.split_whitespace());
        Cli::try_parse_from(words.map(OsString::from).map(respell))
    }

    #[test]
    fn corednss_spellings_work() {
        for line in [
            "-conf X -dns.port 1053 -quiet",
            "-conf=X -dns.port=1053 -quiet=true",
            "--conf X -p 1053 --quiet",
            "-conf X -p=1053 -quiet",
        ] {
            let cli = parse(line).expect(line);
            assert_eq!(cli.conf, Some("X".into()), "{line}");
            assert_eq!(cli.port, 1053, "{line}");
            assert!(cli.quiet, "{line}");
        }
        assert!(parse("-version").is_ok_and(|cli| cli.version));
        assert!(parse("-plugins").is_ok_and(|cli| cli.plugins));
        assert!(parse("-conf -").is_ok_and(|cli| cli.conf == Some("-".into())));
        assert!(parse("check --conf X").is_ok_and(|cli| cli.conf == Some("X".into())));
    }

    #[test]
    fn what_nobody_asked_for_is_an_error() {
        for line in [
            "extra",
            "check extra",
            "-unknown",
            "--dns.port 65536",
            "--workers 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
