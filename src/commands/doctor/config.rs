//! D07 config: the object in etcd that `skeindns skydns` reads.

use skein_plugins::etcd::{Client, KeyRange, V2Client};

use super::super::skydns::{Examined, examine};
use super::finding::Findings;
use super::host::is_local;

/// The object's octets, and in which store it is.
pub(super) async fn fetch(
    client: &Client,
    v2: Option<&V2Client>,
    prefix: &str,
) -> Option<(Vec<u8>, &'static str)> {
    let key = format!("{prefix}config");
    let kvs = client.list(KeyRange::key(key.clone())).await;
    if let Some(kv) = kvs.ok().and_then(|kvs| kvs.into_iter().next()) {
        return Some((kv.value, "v3"));
    }
    let reply = v2?.get(&key).await.ok().flatten()?;
    (!reply.node.dir).then_some((reply.node.value.into_bytes(), "v2"))
}

/// Looks at it; what can be used of it comes along.
pub(super) fn config(
    object: Option<&(Vec<u8>, &'static str)>,
    prefix: &str,
) -> (Option<Examined>, Findings) {
    let mut findings = Findings::of("D07");
    let key = format!("{prefix}config");
    let Some((octets, store)) = object else {
        findings.ok(format!(
            "there is no {key}; flags, variables or the Dnsfile say everything"
        ));
        return (None, findings);
    };
    let examined = match examine(&key, octets) {
        Ok(examined) => examined,
        Err(errors) => {
            for error in errors {
                findings.fail(
                    error,
                    "correct it: a server keeps its last good one, or does not start",
                );
            }
            return (None, findings);
        }
    };
    for remark in &examined.remarks {
        findings.warn(remark.clone(), "correct or remove the field");
    }
    let address = examined.dns_addr;
    if !address.ip().is_unspecified() && !is_local(address.ip()) {
        findings.warn(
            format!("{key}: dns_addr {address} is no address of this machine"),
            "on the machine of the server that is wrong; if this is another one, it is not",
        );
    }
    if examined.nameservers.contains(&address) {
        findings.fail(
            format!("{key}: nameservers has {address}, which is the server itself"),
            "name an upstream instead",
        );
    }
    if let Some(hostmaster) = &examined.hostmaster {
        let name = hostmaster.replace('@', ".");
        let domain = examined.domain.trim_end_matches('.');
        if !name.trim_end_matches('.').ends_with(domain) {
            findings.warn(
                format!(
                    "{key}: hostmaster {hostmaster} is not in {}",
                    examined.domain
                ),
                "if mail does not go there, leave it out: it is hostmaster in the domain then",
            );
        }
    }
    if findings.all.is_empty() {
        findings.ok(format!(
            "{key} ({store}) is right: domain {}, dns_addr {address}",
            examined.domain
        ));
    }
    (Some(examined), findings)
}
