//! Where settings come from before etcd is asked: environment variables, which are the defaults of flags, then flags in Go's spelling.

use super::settings::{FIELDS, Field, Kind, Settings};
use skein_plugins::kit::errors::nearest;

/// What the command line asks for beside settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Wishes {
    /// `-version`.
    pub(super) version: bool,
    /// `-print-dnsfile`.
    pub(super) print_dnsfile: bool,
    /// `-help`.
    pub(super) help: bool,
}

/// Reads variables, then flags; or everything that is wrong with them, each with its place.
pub(super) fn read(
    arguments: &[String],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(Settings, Wishes), Vec<String>> {
    let mut settings = Settings::default();
    let mut errors = Vec::new();
    for field in FIELDS {
        let Some(name) = field.variable else { continue };
        let Some(value) = variable(name) else {
            continue;
        };
        // A variable that is empty is one that is not set, in Go and for the people who write unit files.
        if value.is_empty() {
            continue;
        }
        if let Err(what) = (field.set)(&mut settings, &value) {
            errors.push(format!("{name}: {what}"));
        }
        if name == "ETCD_PASSWORD" {
            settings.password.is_variable = true;
        }
    }
    let mut wishes = Wishes::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some((name, value)) = flag(argument) else {
            let mut flags = FIELDS.iter().filter_map(|field| field.flag);
            let meant = flags.clone().find(|flag| flag == argument);
            let advice = match meant.or_else(|| nearest(argument, &mut flags)) {
                Some(near) => format!("did you mean -{near}?"),
                None => "flags begin with a dash, see -help".to_owned(),
            };
            errors.push(format!("`{argument}`: unexpected argument; {advice}"));
            continue;
        };
        let wish = match name {
            "version" => Some(&mut wishes.version),
            "print-dnsfile" => Some(&mut wishes.print_dnsfile),
            "help" | "h" => Some(&mut wishes.help),
            _ => None,
        };
        if let Some(wish) = wish {
            match super::settings::boolean(value.unwrap_or("true")) {
                Ok(value) => *wish = value,
                Err(what) => errors.push(format!("-{name}: {what}")),
            }
            continue;
        }
        let Some(field) = FIELDS.iter().find(|field| field.flag == Some(name)) else {
            errors.push(unknown(name, value.is_none(), &mut rest));
            continue;
        };
        let value = match (value, field.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true",
            (None, _) => match rest.next() {
                Some(value) => value,
                None => {
                    errors.push(format!("-{name}: needs a value: {}", field.help));
                    continue;
                }
            },
        };
        if let Err(what) = (field.set)(&mut settings, value) {
            // What a password was must not be seen.
            errors.push(format!("-{name}: {what}"));
        }
    }
    if settings.tls_key.is_some() != settings.tls_pem.is_some() {
        errors.push(
            "-tls-key and -tls-pem: one is of no use without the other; give both or none".into(),
        );
    }
    if settings.username.is_some() && settings.password.value.is_none() {
        errors.push("-username: needs a password; put it into ETCD_PASSWORD".into());
    }
    match errors.is_empty() {
        true => Ok((settings, wishes)),
        false => Err(errors),
    }
}

/// Name and, behind `=`, value of `-name`, `-name=value`, `--name`.
fn flag(argument: &str) -> Option<(&str, Option<&str>)> {
    let name = argument.strip_prefix('-')?;
    let name = name.strip_prefix('-').unwrap_or(name);
    if name.is_empty() || name.starts_with(['-', '=']) {
        return None;
    }
    Some(match name.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (name, None),
    })
}

/// The error for a flag that there is not; its value, if it looks like one, is passed over.
fn unknown(name: &str, takes_next: bool, rest: &mut std::slice::Iter<'_, String>) -> String {
    if takes_next
        && rest
            .as_slice()
            .first()
            .is_some_and(|next| !next.starts_with('-'))
    {
        rest.next();
    }
    let by_json = |field: &&Field| field.is_named(name);
    let advice = match name {
        "discover" => "was removed from SkyDNS; name all members with -machines".to_owned(),
        _ => match FIELDS.iter().filter(by_json).find_map(|field| field.flag) {
            Some(flag) => format!("write -{flag}"),
            None => match nearest(name, FIELDS.iter().filter_map(|field| field.flag)) {
                Some(near) => format!("did you mean -{near}?"),
                None => "see -help".to_owned(),
            },
        },
    };
    format!("-{name}: there is no such flag; {advice}")
}

/// What `-help` prints.
pub(super) fn usage() -> String {
    use std::fmt::Write as _;
    let mut text = String::from(
        "Usage: skeindns skydns [FLAGS]\n\n\
         Serves a domain from etcd as SkyDNS does. Variables are the defaults of flags; the object in etcd at /PREFIX/config wins over both\n\
         and is followed live.\n\nFlags (Go's spellings -name VALUE, -name=VALUE and --name are all fine):\n",
    );
    let mut line = |left: &str, right: &str| {
        // Writing into a String cannot fail.
        writeln!(text, "  {left:<24} {right}").ok();
    };
    for field in FIELDS {
        let Some(flag) = field.flag else { continue };
        let left = match field.kind {
            Kind::Bool => format!("-{flag}"),
            Kind::Text => format!("-{flag} TEXT"),
            Kind::Number => format!("-{flag} NUMBER"),
            Kind::Duration => format!("-{flag} DURATION"),
            Kind::List => format!("-{flag} A,B,…"),
        };
        let variable = field
            .variable
            .map_or_else(String::new, |name| format!(", {name}"));
        line(
            &left,
            &format!("{} (default {}{variable})", field.help, field.default),
        );
    }
    line(
        "-print-dnsfile",
        "print the Dnsfile that all this amounts to, and end",
    );
    line("-version", "print the version, and end");
    text.push_str("\nVariables without a flag:\n");
    for field in FIELDS.iter().filter(|field| field.flag.is_none()) {
        if let Some(name) = field.variable {
            writeln!(
                text,
                "  {name:<24} {} (default {})",
                field.help, field.default
            )
            .ok();
        }
    }
    text
}
