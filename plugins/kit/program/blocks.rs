//! A server block on its way from the tree to a chain.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::kit::authority::Registry;
use crate::kit::dnsfile::{ServerBlock, Span, Word};
use crate::kit::errors::{self, SetupError};
use crate::kit::handler::Link;
use crate::kit::lookup::Home;
use crate::kit::metrics::Reading;
use crate::kit::options::{self, Checked};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::ListenerId;
use crate::kit::routing::ChainFacts;
use crate::kit::setup::{Registered, ServerSetup, Services};
use crate::kit::zones::{self, Key, Zone, ZoneSet};

use super::{Listener, order};

/// The plugins of CoreDNS 1.14.7 by name, so that one we lack is told from a misspelling.
const COREDNS: &[&str] = &[
    "acl",
    "any",
    "auto",
    "autopath",
    "azure",
    "bind",
    "bufsize",
    "cache",
    "cancel",
    "chaos",
    "clouddns",
    "debug",
    "dns64",
    "dnssec",
    "dnstap",
    "erratic",
    "errors",
    "etcd",
    "file",
    "forward",
    "geoip",
    "grpc",
    "grpc_server",
    "header",
    "health",
    "hosts",
    "https",
    "https3",
    "k8s_external",
    "kubernetes",
    "loadbalance",
    "local",
    "log",
    "loop",
    "metadata",
    "minimal",
    "multisocket",
    "nomad",
    "nsid",
    "on",
    "pprof",
    "prometheus",
    "proxyproto",
    "quic",
    "ready",
    "reload",
    "rewrite",
    "root",
    "route53",
    "secondary",
    "shed",
    "sign",
    "template",
    "timeouts",
    "tls",
    "trace",
    "transfer",
    "tsig",
    "view",
    "whoami",
];

/// A server block under construction.
pub(super) struct Block {
    number: usize,
    keys: Vec<(Key, Span)>,
    zones: ZoneSet,
    // By the plugin's name in the table, each with all its directives.
    directives: Vec<(&'static str, Vec<Checked>)>,
    plugins: Vec<&'static str>,
    // The table, as this block orders it.
    order: Vec<&'static Plugin>,
    listeners: Vec<(ListenerId, String)>,
    bind: Option<Vec<IpAddr>>,
    root: PathBuf,
    all_classes: bool,
    chain: Vec<Link>,
    authority: Arc<Registry>,
}

impl Block {
    /// Reads keys and directives; what is wrong goes to `errors` and is left out.
    pub(super) fn read(
        block: &ServerBlock,
        number: usize,
        table: &[&'static Plugin],
        services: &Services,
        warnings: &mut Vec<SetupError>,
        errors: &mut Vec<SetupError>,
    ) -> Block {
        let mut keys = Vec::new();
        for word in &block.keys {
            match zones::parse_key(&word.text, services.default_port) {
                Ok(read) => {
                    if let Some((before, behind)) = word.text.split_once(',') {
                        let what = format!(
                            "`{}` is one zone with a comma in its name; write `{before}, {behind}` for two",
                            word.text
                        );
                        warnings.push(SetupError::at(word.span, what));
                    }
                    if let Some(odd) = read.iter().find(|key| !is_preferred(&key.zone.text)) {
                        let what = format!(
                            "domain \"{}\" does not follow RFC1035 preferred syntax",
                            odd.zone
                        );
                        warnings.push(SetupError::at(word.span, what));
                    }
                    keys.extend(read.into_iter().map(|key| (key, word.span)));
                }
                Err(what) => errors.push(SetupError::at(word.span, what)),
            }
        }
        let mut directives: Vec<(&'static str, Vec<Checked>)> = Vec::new();
        let mut order = table.to_vec();
        for directive in &block.directives {
            if directive.name.text == order::DIRECTIVE {
                order::apply(directive, &mut order, errors);
                continue;
            }
            let Some(plugin) = find(table, &directive.name.text) else {
                errors.push(unknown(table, &directive.name));
                continue;
            };
            let checked = match options::check(plugin, directive, warnings) {
                Ok(checked) => checked,
                Err(found) => {
                    errors.extend(found.0.into_iter().map(|error| named(plugin, error)));
                    continue;
                }
            };
            match directives.iter_mut().find(|(name, _)| *name == plugin.name) {
                Some((_, lines)) if plugin.repeat == Repeat::Many => lines.push(checked),
                Some(_) => {
                    let what = "this plugin can only be used once per server block";
                    errors.push(named(plugin, SetupError::at(directive.name.span, what)));
                }
                None => directives.push((plugin.name, vec![checked])),
            }
        }
        let plugins = order
            .iter()
            .map(|plugin| plugin.name)
            .filter(|name| directives.iter().any(|(found, _)| found == name))
            .collect();
        Block {
            number,
            zones: ZoneSet::new(keys.iter().map(|(key, _)| key.zone.clone())),
            keys,
            directives,
            plugins,
            order,
            listeners: Vec::new(),
            bind: None,
            root: services.start_folder(),
            all_classes: false,
            chain: Vec::new(),
            authority: Arc::default(),
        }
    }

    /// Runs the setup of the plugin in this place of the block's order, if it stands in this block.
    pub(super) fn set_up(
        &mut self,
        place: usize,
        home: &Home,
        services: &Services,
        registered: &mut Registered,
        errors: &mut Vec<SetupError>,
    ) {
        let Some(plugin) = self.order.get(place).copied() else {
            return;
        };
        let Some((_, directives)) = self
            .directives
            .iter()
            .find(|(name, _)| *name == plugin.name)
        else {
            return;
        };
        let hosts = self.hosts();
        let mut server = ServerSetup {
            services,
            registered,
            home: home.clone(),
            chain_number: self.number,
            chain: std::mem::take(&mut self.chain),
            plugin: plugin.name,
            keys: self.keys.iter().map(|(key, _)| key.clone()).collect(),
            zones: self.zones.clone(),
            listeners: self.listeners.clone(),
            bind: self.bind.take(),
            root: std::mem::take(&mut self.root),
            all_classes: self.all_classes,
            plugins_in_block: self.plugins.clone(),
            authority: Arc::clone(&self.authority),
        };
        if let Err(found) = (plugin.setup)(directives, &mut server) {
            errors.extend(found.0.into_iter().map(|error| named(plugin, error)));
        }
        self.chain = server.chain;
        self.bind = server.bind;
        self.root = server.root;
        self.all_classes = server.all_classes;
        // Handlers know their listeners by number, from their setup on.
        if self.hosts() != hosts
            && !self.chain.is_empty()
            && let Some(directive) = directives.first()
        {
            let what =
                "where to listen must be settled before every handler; leave it out of `order`";
            errors.push(named(plugin, SetupError::at(directive.span(), what)));
        }
    }

    /// Every zone with every listener.
    pub(super) fn served(&self) -> impl Iterator<Item = (&Zone, ListenerId)> {
        self.keys.iter().flat_map(|(key, _)| {
            self.hosts().into_iter().filter_map(|host| {
                let name = listener_name(host, key.port);
                let (id, _) = self.listeners.iter().find(|(_, found)| *found == name)?;
                Some((&key.zone, *id))
            })
        })
    }

    /// The `coredns_plugin_enabled` gauges of this block.
    pub(super) fn enabled_plugins(&self, services: &Services) -> Vec<Reading> {
        let mut readings = Vec::new();
        for (zone, id) in self.served() {
            let server = self
                .listeners
                .iter()
                .find(|(found, _)| *found == id)
                .map_or("", |(_, name)| name.as_str());
            for plugin in &self.plugins {
                // CoreDNS calls the plugin after its directive.
                let plugin = if *plugin == "metrics" {
                    "prometheus"
                } else {
                    plugin
                };
                let labels = [
                    ("server", server),
                    ("zone", zone.text.as_str()),
                    ("view", ""),
                    ("name", plugin),
                ];
                let help = "A metric that indicates whether a plugin is enabled on per server and zone basis.";
                readings.push(services.metrics.gauge_fn(
                    "coredns_plugin_enabled",
                    help,
                    &labels,
                    || 1.0,
                ));
            }
        }
        readings
    }

    /// Its chain, with what routing must know.
    pub(super) fn into_chain(self) -> (Vec<Link>, ChainFacts) {
        (
            self.chain,
            ChainFacts {
                all_classes: self.all_classes,
            },
        )
    }

    /// The addresses to listen on; the unspecified one if none was named.
    fn hosts(&self) -> Vec<IpAddr> {
        self.bind
            .clone()
            .unwrap_or_else(|| vec![IpAddr::V6(Ipv6Addr::UNSPECIFIED)])
    }
}

/// Whether a zone is spelled as RFC 1035 §2.3.1 prefers: labels of letters, digits and hyphens that start with a letter and end with none of
/// the latter. The root and reverse zones are as they should be.
fn is_preferred(zone: &str) -> bool {
    let is_reverse = zone.ends_with(".in-addr.arpa.") || zone.ends_with(".ip6.arpa.");
    zone == "."
        || is_reverse
        || zone.trim_end_matches('.').split('.').all(|label| {
            label.starts_with(|c: char| c.is_ascii_alphabetic())
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
        })
}

/// Every listener of all blocks, numbered in the order of the file; the blocks are told theirs.
pub(super) fn listeners(blocks: &mut [Block]) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for block in blocks {
        block.listeners.clear();
        for host in block.hosts() {
            for (key, span) in &block.keys {
                let name = listener_name(host, key.port);
                let found = listeners.iter().position(|listener| listener.name == name);
                let position = found.unwrap_or_else(|| {
                    listeners.push(Listener {
                        address: SocketAddr::new(host, key.port),
                        name: name.clone(),
                        span: *span,
                    });
                    listeners.len() - 1
                });
                // `bind 0.0.0.0` beside a block that listens on every address: one socket does for both.
                if host.is_unspecified()
                    && host.is_ipv6()
                    && let Some(listener) = listeners.get_mut(position)
                {
                    listener.address.set_ip(host);
                }
                let entry = (ListenerId(position as u16), name);
                if !block.listeners.contains(&entry) {
                    block.listeners.push(entry);
                }
            }
        }
    }
    listeners
}

/// Zones that are served twice at the same place, or at every address and at one of them as well.
pub(super) fn find_conflicts(blocks: &[Block], errors: &mut Vec<SetupError>) {
    // By zone and port: where it is served so far, none being every address.
    let mut seen: HashMap<(&str, u16), Vec<Option<IpAddr>>> = HashMap::new();
    for block in blocks {
        for host in block.hosts() {
            let host = (!host.is_unspecified()).then_some(host);
            for (key, span) in &block.keys {
                let earlier = seen.entry((key.zone.text.as_str(), key.port)).or_default();
                let overlaps = |other: &&Option<IpAddr>| other.is_none() || host.is_none();
                if earlier.contains(&host) {
                    let what = format!("cannot serve {} - it is already defined", place(key, host));
                    errors.push(SetupError::at(*span, what));
                } else if let Some(other) = earlier.iter().rfind(overlaps) {
                    let what = format!(
                        "cannot serve {} - zone overlap listener capacity with {}; `bind` both to addresses or neither",
                        place(key, host),
                        place(key, *other),
                    );
                    errors.push(SetupError::at(*span, what));
                } else {
                    earlier.push(host);
                }
            }
        }
    }
}

fn place(key: &Key, host: Option<IpAddr>) -> String {
    let on = host.map(|host| format!(" on {host}")).unwrap_or_default();
    format!("dns://{}:{}{on}", key.zone.text, key.port)
}

fn listener_name(host: IpAddr, port: u16) -> String {
    match host {
        host if host.is_unspecified() => format!("dns://:{port}"),
        host => format!("dns://{}", SocketAddr::new(host, port)),
    }
}

pub(super) fn find(table: &[&'static Plugin], name: &str) -> Option<&'static Plugin> {
    table
        .iter()
        .find(|plugin| plugin.name == name || plugin.aliases.contains(&name))
        .copied()
}

pub(super) fn unknown(table: &[&'static Plugin], word: &Word) -> SetupError {
    if COREDNS.contains(&word.text.as_str()) {
        let what = format!(
            "plugin `{}` of CoreDNS is not part of SkeinDNS yet; remove the line or serve this block with CoreDNS",
            word.text
        );
        return SetupError::at(word.span, what);
    }
    let names = table
        .iter()
        .flat_map(|plugin| plugin.aliases.iter().copied().chain([plugin.name]));
    let error = SetupError::at(word.span, format!("unknown plugin `{}`", word.text));
    match errors::nearest(&word.text, names) {
        Some(near) => error.suggest(near),
        None => error,
    }
}

fn named(plugin: &Plugin, error: SetupError) -> SetupError {
    SetupError {
        plugin: error.plugin.or_else(|| Some(plugin.name.to_owned())),
        ..error
    }
}
