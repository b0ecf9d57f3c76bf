//! Keys that v2 hides: a directory's list leaves out what starts with `_`. They can be read by name, where the name can be guessed.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use skein_plugins::etcd::{Error, V2Client, V2Node};

/// Questions at a time.
const AT_ONCE: usize = 32;
/// Directories that are asked about, at most.
const DIRECTORIES_MAX: usize = 50_000;
/// Levels of hidden names within hidden names: `_tcp/_http`.
const DEPTH_MAX: usize = 3;
/// Transports, which stand below a service's domain (RFC 2782).
const TRANSPORTS: [&str; 4] = ["_tcp", "_udp", "_tls", "_sctp"];
/// Services, which stand below a transport.
const SERVICES: [&str; 24] = [
    "_http",
    "_https",
    "_ldap",
    "_ldaps",
    "_kerberos",
    "_kpasswd",
    "_sip",
    "_sips",
    "_xmpp-client",
    "_xmpp-server",
    "_imap",
    "_imaps",
    "_submission",
    "_smtp",
    "_ssh",
    "_ntp",
    "_domain",
    "_mysql",
    "_postgresql",
    "_redis",
    "_mongodb",
    "_etcd-client",
    "_etcd-server",
    "_prometheus",
];

/// Looks for hidden keys below these directories: names that are usual, and `more`.
pub(super) async fn find(
    client: &V2Client,
    directories: BTreeSet<String>,
    more: &[String],
) -> Result<Vec<V2Node>, Error> {
    let mut found = Vec::new();
    // Addresses have no services below them.
    let directories = directories.into_iter().filter(|key| !key.contains("/arpa"));
    let mut level: Vec<String> = directories.take(DIRECTORIES_MAX).collect();
    for _ in 0..DEPTH_MAX {
        let names = level.iter().flat_map(|directory| {
            let is_hidden = directory
                .rsplit('/')
                .next()
                .is_some_and(|name| name.starts_with('_'));
            let usual: &[&str] = if is_hidden { &SERVICES } else { &TRANSPORTS };
            let names = usual.iter().copied().chain(more.iter().map(String::as_str));
            names.map(move |name| format!("{directory}/{name}"))
        });
        let asked: Vec<_> = names
            .map(|key| async move { client.list(&key).await })
            .collect();
        let mut replies = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE);
        let mut next = Vec::new();
        while let Some(reply) = replies.next().await {
            let Some(reply) = reply? else {
                continue;
            };
            for node in std::iter::once(reply.node).chain(reply.below) {
                if node.dir {
                    next.push(node.key.clone());
                }
                found.push(node);
            }
        }
        if next.is_empty() {
            break;
        }
        level = next;
    }
    Ok(found)
}
