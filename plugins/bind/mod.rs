//! bind: which addresses to listen on.

use std::net::{IpAddr, Ipv6Addr};

use crate::kit::dnsfile::Word;
use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::options::{Arg, Checked, Kind, Opt};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::setup::ServerSetup;

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "bind",
    aliases: &[],
    summary: "listens on these addresses or interfaces instead of all",
    arguments: &[Arg::some("ADDRESS|INTERFACE", Kind::Text)],
    options: &[Opt::new(
        "except",
        &[Arg::some("ADDRESS|INTERFACE", Kind::Text)],
        "none",
        "leaves these addresses, or those of these interfaces, out of what this line names",
    )
    .adds()],
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut errors = SetupErrors::default();
    let mut addresses = Vec::new();
    for directive in directives {
        let mut read = |words: &mut dyn Iterator<Item = &Word>| {
            let mut found = Vec::new();
            for word in words {
                match expand(word, &interfaces) {
                    Ok(some) => found.extend(some),
                    Err(error) => errors.0.push(error),
                }
            }
            found
        };
        let named = read(&mut directive.values.iter().map(|(_, value)| &value.word));
        let except = read(
            &mut directive
                .options("except")
                .flat_map(|line| line.values.iter().map(|(_, value)| &value.word)),
        );
        addresses.extend(
            named
                .into_iter()
                .filter(|address| !except.contains(address)),
        );
    }
    if !errors.0.is_empty() {
        return Err(errors);
    }
    let mut unique: Vec<IpAddr> = Vec::new();
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    if unique.is_empty()
        && let Some(first) = directives.first()
    {
        server.warn(
            first.span(),
            "every address is excepted: this server block listens nowhere",
        );
    }
    server.bind(unique);
    Ok(())
}

/// The addresses that a word stands for: itself, or all of an interface's.
fn expand(word: &Word, interfaces: &[if_addrs::Interface]) -> Result<Vec<IpAddr>, SetupError> {
    let of_interface: Vec<IpAddr> = interfaces
        .iter()
        .filter(|interface| interface.name == word.text)
        .map(if_addrs::Interface::ip)
        .filter(|ip| !is_link_local(ip))
        .collect();
    if interfaces
        .iter()
        .any(|interface| interface.name == word.text)
    {
        return Ok(of_interface);
    }
    match word.text.parse::<IpAddr>() {
        Ok(address) => Ok(vec![address]),
        Err(_) => {
            let mut names: Vec<&str> = interfaces
                .iter()
                .map(|interface| interface.name.as_str())
                .collect();
            names.sort_unstable();
            names.dedup();
            let what = format!(
                "not a valid IP address or interface name: `{}` (interfaces: {})",
                word.text,
                names.join(", ")
            );
            Err(SetupError::at(word.span, what))
        }
    }
}

// A link-local address means nothing without its scope, which an `IpAddr` cannot carry.
fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if Ipv6Addr::is_unicast_link_local(ip))
}
