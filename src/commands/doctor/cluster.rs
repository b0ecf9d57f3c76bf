//! D03 endpoints, D04 api, D05 auth, D06 data, D13 time: the cluster.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use skein_plugins::etcd::{
    Client, Config, Error, KeyRange, ListRequest, Look, V2Client, V2Reply, WatchRequest, look,
};
use tokio::time::timeout;

use super::finding::Findings;

/// What a clock may be off before leases and signatures suffer; the header has whole seconds.
const SKEW_WARN: Duration = Duration::from_secs(2);
const SKEW_FAIL: Duration = Duration::from_secs(60);
/// For the first message of a watch.
const WATCH_PATIENCE: Duration = Duration::from_secs(3);

/// What is known of an endpoint.
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) version: Option<String>,
    date: Option<String>,
    seen: SystemTime,
    cluster: Option<u64>,
    pub(super) revision: Option<i64>,
    v3: Api,
    pub(super) v2: Api,
    health: Option<Look>,
}

/// Whether an API is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Api {
    Unknown,
    There,
    Missing,
    /// There, but not for us, and why.
    Refused(String),
}

/// D03: each endpoint by itself.
pub(super) async fn endpoints(config: &Config) -> (Vec<Endpoint>, Findings) {
    let mut findings = Findings::of("D03");
    let mut found = Vec::new();
    for url in &config.endpoints {
        match endpoint(config, url).await {
            Ok(endpoint) => {
                say_endpoint(&endpoint, &mut findings);
                found.push(endpoint);
            }
            Err(what) => findings.fail(format!("{url}: {what}"), connect_fix(url, &what)),
        }
    }
    let mut clusters: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for endpoint in &found {
        if let Some(cluster) = endpoint.cluster {
            clusters.entry(cluster).or_default().push(&endpoint.url);
        }
    }
    if clusters.len() > 1 {
        let shown = clusters
            .iter()
            .map(|(id, urls)| format!("{} in {id:x}", urls.join(", ")));
        findings.fail(
            format!(
                "the endpoints are of different clusters: {}",
                shown.collect::<Vec<_>>().join("; ")
            ),
            "name the members of one cluster only: `etcdctl member list` shows them",
        );
    }
    (found, findings)
}

fn say_endpoint(endpoint: &Endpoint, findings: &mut Findings) {
    let url = &endpoint.url;
    let version = endpoint.version.as_deref().unwrap_or("an unknown version");
    match &endpoint.health {
        Some(look) if look.status == 200 && !body(look).contains("false") => {
            findings.ok(format!("{url}: etcd {version}, healthy"));
        }
        Some(look) if look.status == 404 => findings.ok(format!("{url}: etcd {version}")),
        Some(look) => findings.fail(
            format!("{url}: etcd {version} is not healthy: {}", body(look)),
            "`etcdctl endpoint status --cluster` shows who leads; more than half of the members must run and reach each other",
        ),
        None => findings.warn(
            format!("{url}: etcd {version} says nothing of its health"),
            "`etcdctl endpoint health` tells more",
        ),
    }
}

/// What is done about an endpoint that cannot be reached.
fn connect_fix(url: &str, what: &str) -> String {
    let what = what.to_ascii_lowercase();
    if what.contains("not valid for name") || what.contains("notvalidforname") {
        "the certificate is for another name or address: name the endpoint as the certificate does (its SAN), or issue one for this name".into()
    } else if what.contains("unknownissuer") || what.contains("unknown issuer") {
        "give the CA that signed etcd's certificate with --ca, or `tls` in the Dnsfile".into()
    } else if what.contains("expired") {
        "etcd's certificate has expired: issue a new one and restart the member; if it has not, check the clock".into()
    } else if what.contains("certificaterequired") || what.contains("certificate required") {
        "etcd wants a client certificate: --cert and --key, or `tls CERT KEY CA`".into()
    } else if what.contains("refused") {
        "start etcd there, or correct the address or port: the member's --listen-client-urls has to have it".into()
    } else if what.contains("corrupt") || what.contains("invalidcontenttype") {
        "etcd speaks plain HTTP there: write http://".into()
    } else if what.contains("closed") && url.starts_with("http:") {
        "etcd speaks TLS there perhaps: write https://".into()
    } else if what.contains("dns") || what.contains("resolve") {
        "write the member's address: names of the cluster should not depend on the DNS that reads it".into()
    } else {
        "check the address, the route and the firewall (etcd's clients use port 2379)".into()
    }
}

async fn endpoint(config: &Config, url: &str) -> Result<Endpoint, String> {
    let version = look(config, url, "/version", None).await?;
    let health = look(config, url, "/health", None).await.ok();
    let asked = r#"{"key":"AA==","count_only":true,"serializable":true}"#;
    let v3 = look(config, url, "/v3/kv/range", Some(asked)).await;
    let status = look(config, url, "/v3/maintenance/status", Some("{}")).await;
    let v2 = look(config, url, "/v2/keys/", None).await;
    let json = |look: &Look| serde_json::from_slice::<Value>(&look.body).unwrap_or_default();
    let header = |field: &str| {
        let looks = [v3.as_ref().ok(), status.as_ref().ok()];
        let values = looks.into_iter().flatten().map(json);
        let mut numbers =
            values.filter_map(|value| value["header"][field].as_str()?.parse::<u64>().ok());
        numbers.next()
    };
    let from_v2 = v2.as_ref().ok().and_then(|look| look.cluster_id.as_deref());
    let from_v2 = from_v2.and_then(|id| u64::from_str_radix(id, 16).ok());
    let server = json(&version)["etcdserver"].as_str().map(str::to_owned);
    Ok(Endpoint {
        url: url.to_owned(),
        version: server,
        date: version.date.clone(),
        seen: SystemTime::now(),
        cluster: header("cluster_id").or(from_v2),
        revision: header("revision").and_then(|revision| i64::try_from(revision).ok()),
        v3: api(v3.as_ref()),
        v2: api(v2.as_ref()),
        health,
    })
}

fn api(look: Result<&Look, &String>) -> Api {
    let Ok(look) = look else {
        return Api::Unknown;
    };
    let text = body(look);
    let is_json = serde_json::from_str::<Value>(&text).is_ok_and(|value| value.is_object());
    match look.status {
        200 => Api::There,
        404 if !is_json => Api::Missing,
        421 => Api::Refused("421: the host name is not on its list (--host-whitelist)".into()),
        400 if text.contains("CommonName") => Api::Refused(text),
        // An answer of etcd's, if only to say that it wants a user.
        400..=499 if is_json => Api::There,
        status => Api::Refused(format!("HTTP {status}: {text}")),
    }
}

fn body(look: &Look) -> String {
    let text = String::from_utf8_lossy(&look.body);
    text.trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect()
}

/// D04: which APIs each endpoint has.
pub(super) fn apis(endpoints: &[Endpoint]) -> Findings {
    let mut findings = Findings::of("D04");
    for endpoint in endpoints {
        let url = &endpoint.url;
        let and_v2 = if endpoint.v2 == Api::There {
            " and v2"
        } else {
            ""
        };
        match (&endpoint.v3, &endpoint.version) {
            (Api::There, _) => findings.ok(format!("{url}: the v3 JSON API{and_v2}")),
            (Api::Refused(what), _) if what.contains("CommonName") => findings.fail(
                format!("{url}: {what}"),
                "with users switched on, etcd's gateway takes no client certificate that has a CommonName: issue one with an empty CN, or switch --client-cert-auth off",
            ),
            (Api::Refused(what), _) => findings.fail(
                format!("{url}: {what}"),
                "start etcd with --host-whitelist naming the host in the URL, or name the endpoint by its address",
            ),
            (Api::Missing, None) => findings.fail(
                format!("{url}: neither /v3 nor /version: a grpc-proxy, or no etcd"),
                "name the members themselves, or `etcd gateway` instead of `etcd grpc-proxy`; with --listen-client-http-urls the JSON API is at those URLs",
            ),
            (Api::Missing, Some(version)) if is_before_3_4(version) => findings.fail(
                format!("{url}: etcd {version} has the v3 API elsewhere{and_v2}"),
                "write `api v2` in the Dnsfile while the data is in v2, or take etcd 3.4 or newer",
            ),
            (Api::Missing, Some(version)) if version.starts_with("3.4.") => findings.fail(
                format!("{url}: etcd {version} has its JSON gateway switched off, as it is when etcd is started with a configuration file"),
                "write `enable-grpc-gateway: true` into etcd's configuration file and restart the member",
            ),
            (Api::Missing, Some(version)) => findings.fail(
                format!("{url}: etcd {version} has no v3 JSON API there{and_v2}"),
                "remove --enable-grpc-gateway=false; with --listen-client-http-urls the JSON API is at those URLs",
            ),
            (Api::Unknown, _) => findings.warn(
                format!("{url}: whether the v3 JSON API is there could not be seen"),
                "run it again",
            ),
        }
    }
    findings
}

fn is_before_3_4(version: &str) -> bool {
    let mut numbers = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (major, minor) < (3, 4)
}

/// D05: whether we may read and watch.
pub(super) async fn auth(config: &Config, client: &Client, prefix: &str) -> Findings {
    let mut findings = Findings::of("D05");
    let user = config
        .credentials
        .as_ref()
        .map(|credentials| credentials.user.as_str());
    let request = ListRequest {
        limit: 1,
        keys_only: true,
        ..ListRequest::new(KeyRange::prefix(prefix))
    };
    let role = format!(
        "`etcdctl role grant-permission ROLE read {prefix} {}`",
        range_end(prefix)
    );
    if let Err(error) = client.range(&request).await {
        say_refusal(&error, user, &role, &mut findings);
        return findings;
    }
    let request = WatchRequest {
        range: KeyRange::prefix(prefix),
        start_revision: 0,
        deletes_only: false,
    };
    let watching = async {
        let mut watch = client.open_watch(&request).await?;
        watch.message().await
    };
    let who = user.map_or_else(|| "without a user".to_owned(), |user| format!("as {user}"));
    match timeout(WATCH_PATIENCE, watching).await {
        Ok(Ok(message)) => match message.canceled {
            None => findings.ok(format!("{prefix} can be read and watched {who}")),
            Some(canceled) => findings.fail(
                format!("{prefix} can be read {who}, but not watched: {}", canceled.reason),
                format!("grant the whole range: {role}"),
            ),
        },
        Ok(Err(error)) => findings.fail(
            format!("{prefix} can be read {who}, but not watched: {error}"),
            "check what is between here and etcd: it must let a response stream",
        ),
        Err(_) => findings.fail(
            format!("{prefix} can be read {who}, but a watch gets no answer within {WATCH_PATIENCE:?}"),
            "check what is between here and etcd: a proxy that collects whole responses cannot be watched through",
        ),
    }
    findings
}

fn range_end(prefix: &str) -> String {
    String::from_utf8_lossy(&KeyRange::prefix(prefix).end).into_owned()
}

fn say_refusal(error: &Error, user: Option<&str>, role: &str, findings: &mut Findings) {
    let text = error.to_string();
    match (error, user) {
        (Error::Unauthenticated { .. }, None) => findings.fail(
            format!("etcd wants a user: {text}"),
            "write `credentials USER PASSWORD` in the Dnsfile, or --user with ETCD_PASSWORD",
        ),
        (_, None) if text.contains("user name is empty") => findings.fail(
            format!("etcd wants a user: {text}"),
            "write `credentials USER PASSWORD` in the Dnsfile, or --user with ETCD_PASSWORD",
        ),
        (Error::Denied { .. }, Some(user)) => findings.fail(
            format!("{user} may not read the keys: {text}"),
            format!("grant it: {role}, `etcdctl user grant-role {user} ROLE`; if that is done, the password is wrong"),
        ),
        (_, Some(user)) if text.contains("authentication failed") => findings.fail(
            format!("etcd does not take {user}'s password: {text}"),
            format!("`etcdctl user passwd {user}`, or correct the password"),
        ),
        (error, _) if error.is_outage() => findings.fail(
            format!("nothing can be read: {text}"),
            "see D03 and D04",
        ),
        _ => findings.fail(text, "see etcd's log"),
    }
}

/// D06: which of the two stores has the keys.
pub(super) async fn data(
    config: &Config,
    client: &Client,
    endpoints: &[Endpoint],
    prefix: &str,
    reads: Option<&str>,
) -> Findings {
    let mut findings = Findings::of("D06");
    let request = ListRequest {
        count_only: true,
        ..ListRequest::new(KeyRange::prefix(prefix))
    };
    let v3 = client.range(&request).await.map(|page| page.count);
    let has_v2 = endpoints.iter().any(|endpoint| endpoint.v2 == Api::There);
    let v2 = match V2Client::new(config) {
        Ok(client) if has_v2 => {
            let listed = client.list(prefix.trim_end_matches('/')).await;
            listed.map(|reply| reply.iter().flat_map(V2Reply::values).count())
        }
        _ => Ok(0),
    };
    let migrate = "`skeindns migrate` shows what would be moved to v3, `skeindns migrate --write` does it; or write `api v2` in the Dnsfile";
    match (v3, v2) {
        (Ok(0), Ok(0)) => findings.warn(
            format!("there are no keys below {prefix}"),
            "write the first one: `skeindns service put node1.skydns.local --host 192.0.2.11`; another prefix is named with --path",
        ),
        (Ok(0), Ok(v2)) if matches!(reads, Some("v2" | "auto")) => {
            findings.ok(format!("{v2} keys below {prefix} in the v2 store, which is read"));
        }
        (Ok(0), Ok(v2)) => findings.fail(
            format!("the v2 store has {v2} keys below {prefix} and the v3 store none: who reads v3 sees nothing"),
            migrate,
        ),
        (Ok(v3), Ok(0)) => findings.ok(format!("{v3} keys below {prefix} in the v3 store")),
        (Ok(v3), Ok(v2)) => findings.warn(
            format!("both stores have keys below {prefix}: v3 {v3}, v2 {v2}; a change in one is not seen in the other"),
            migrate,
        ),
        (Err(_), Ok(v2)) if v2 > 0 => findings.warn(
            format!("the v2 store has {v2} keys below {prefix}, and the v3 store cannot be read"),
            "write `api v2` in the Dnsfile, or see D04 and D05",
        ),
        (Err(error), _) | (_, Err(error)) => {
            findings.fail(format!("the keys cannot be counted: {error}"), "see D03 to D05");
        }
    }
    findings
}

/// D13: the clocks of the members beside ours.
pub(super) fn time(endpoints: &[Endpoint]) -> Findings {
    let mut findings = Findings::of("D13");
    for endpoint in endpoints {
        let url = &endpoint.url;
        let date = endpoint
            .date
            .as_deref()
            .and_then(|date| httpdate::parse_http_date(date).ok());
        let Some(date) = date else {
            findings.warn(format!("{url} does not say its time"), "check it by hand");
            continue;
        };
        let skew = match endpoint.seen.duration_since(date) {
            Ok(behind) => behind,
            Err(error) => error.duration(),
        };
        let off = format!("the clock of {url} and ours differ by {} s", skew.as_secs());
        let fix = "let both keep time: `timedatectl set-ntp true`, or chrony";
        match skew {
            skew if skew <= SKEW_WARN => {
                findings.ok(format!("the clock of {url} agrees with ours"))
            }
            skew if skew <= SKEW_FAIL => findings.warn(off, fix),
            _ => findings.fail(off, fix),
        }
    }
    findings
}

/// D15, the cluster's side: members that are behind.
pub(super) fn lag(endpoints: &[Endpoint], findings: &mut Findings) {
    let revisions = || endpoints.iter().filter_map(|endpoint| endpoint.revision);
    let (Some(newest), Some(oldest)) = (revisions().max(), revisions().min()) else {
        return;
    };
    // They were asked one after the other, and the cluster moves on meanwhile.
    match newest - oldest {
        0..=1000 => findings.ok(format!("the members are at revision {newest}")),
        behind => findings.warn(
            format!("a member is {behind} revisions behind the newest ({newest})"),
            "`etcdctl endpoint status --cluster` shows which; its disk or its network is too slow",
        ),
    }
}
