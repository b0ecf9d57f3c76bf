//! [`Members`]: the endpoints of a cluster, which of them is in use, and the connections to them. The clients of both APIs stand on it.
//!
//! A member that has failed is asked last for a while, so that one that is gone costs its connect timeout once and not at every turn.
//! Certificates are read again when their files change: new connections use the new ones, and a watch goes on with the one it has.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rand::seq::SliceRandom;
use tokio::time::timeout;

use super::api::Error;
use super::client::{Config, TlsFiles};
use super::tls;
use crate::kit::clock::{self, Instant};

/// To connect, TLS included.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For so long a member that failed is asked after the others.
const FAILED_FOR: Duration = Duration::from_secs(60);
/// Between two looks at the times of the TLS files.
const FILES_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);
/// For a look at what an endpoint is.
const VERSION_TIMEOUT: Duration = Duration::from_secs(1);
/// Octets of an error's body that are read.
const ERROR_OCTETS_MAX: usize = 65_536;

/// See the module.
pub(super) struct Members {
    // In random order, so that many servers do not all lean on the first member.
    endpoints: Vec<String>,
    current: AtomicUsize,
    started: Instant,
    // Milliseconds since `started` at which each member last failed, plus one; 0: it has not.
    failed: Vec<AtomicU64>,
    connections: Mutex<Connections>,
    files: TlsFiles,
    is_secure: bool,
}

struct Connections {
    http: reqwest::Client,
    looked_at: Instant,
    stamps: Vec<Stamp>,
    // The last trouble with changed files that was said.
    said: Option<String>,
}

/// What tells that a file is another one: its time and its length.
type Stamp = Option<(SystemTime, u64)>;

/// Why a call failed, and whether the member may have acted on it.
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) sent: bool,
}

/// It was not sent.
pub(super) fn unsent(error: Error) -> Failure {
    Failure { error, sent: false }
}

/// It may have been acted on.
pub(super) fn sent(error: Error) -> Failure {
    Failure { error, sent: true }
}

impl Members {
    /// Reads the TLS files; connects when it is first used.
    pub(super) fn new(config: &Config) -> Result<Members, String> {
        if config.endpoints.is_empty() {
            return Err("no endpoint".into());
        }
        let is_secure = config.endpoints.iter().any(|e| e.starts_with("https:"));
        let stamps = stamps(&config.tls);
        let http = connect(&config.tls, is_secure)?;
        let mut endpoints = config.endpoints.clone();
        endpoints.shuffle(&mut rand::rng());
        let now = clock::now();
        Ok(Members {
            failed: endpoints.iter().map(|_| AtomicU64::new(0)).collect(),
            endpoints,
            current: AtomicUsize::new(0),
            started: now,
            connections: Mutex::new(Connections {
                http,
                looked_at: now,
                stamps,
                said: None,
            }),
            files: config.tls.clone(),
            is_secure,
        })
    }

    /// All endpoints.
    pub(super) fn all(&self) -> &[String] {
        &self.endpoints
    }

    /// The number of the endpoint in use.
    pub(super) fn current(&self) -> usize {
        self.current.load(Relaxed) % self.endpoints.len().max(1)
    }

    /// An endpoint by number.
    pub(super) fn endpoint(&self, at: usize) -> &str {
        self.endpoints.get(at).map_or("", String::as_str)
    }

    /// The endpoint in use.
    pub(super) fn which(&self) -> &str {
        self.endpoint(self.current())
    }

    /// Every endpoint in the order to try: from the one in use on, and those that have failed lately at the end.
    pub(super) fn order(&self) -> Vec<usize> {
        let all = self.endpoints.len();
        let first = self.current();
        let mut order: Vec<usize> = (first..first + all).map(|at| at % all).collect();
        order.sort_by_key(|at| self.has_failed(*at));
        order
    }

    /// A call succeeded there: it is in use from now on.
    pub(super) fn succeeded(&self, at: usize) {
        self.current.store(at, Relaxed);
        if let Some(failed) = self.failed.get(at) {
            failed.store(0, Relaxed);
        }
    }

    /// A call failed there.
    pub(super) fn failed(&self, at: usize) {
        if let Some(failed) = self.failed.get(at) {
            failed.store(self.millis() + 1, Relaxed);
        }
    }

    /// Leaves the endpoint in use for another.
    pub(super) fn leave(&self) {
        let left = self.current();
        self.failed(left);
        if let Some(next) = self.order().into_iter().find(|at| *at != left) {
            self.current.store(next, Relaxed);
        }
    }

    fn millis(&self) -> u64 {
        let time = clock::now().saturating_duration_since(self.started);
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn has_failed(&self, at: usize) -> bool {
        let failed = self.failed.get(at).map_or(0, |failed| failed.load(Relaxed));
        failed > 0 && self.millis().saturating_sub(failed) < FAILED_FOR.as_millis() as u64
    }

    //--- Connections --------------------------------------------------------------------------

    /// The connections, made anew if the TLS files have changed.
    pub(super) fn http(&self) -> reqwest::Client {
        let mut connections = self.lock();
        let now = clock::now();
        let since = now.saturating_duration_since(connections.looked_at);
        if self.files != TlsFiles::default() && since >= FILES_LOOKED_AT_EVERY {
            connections.looked_at = now;
            self.look(&mut connections);
        }
        connections.http.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, connections: &mut Connections) {
        let stamps = stamps(&self.files);
        if stamps == connections.stamps {
            return;
        }
        match connect(&self.files, self.is_secure) {
            Ok(http) => {
                tracing::info!("plugin/etcd: the TLS files have changed and are used from now on");
                connections.http = http;
                connections.stamps = stamps;
                connections.said = None;
            }
            // Half-written, or a certificate that is there before its key: it is tried again, and the old ones are used until then.
            Err(what) => {
                if connections.said.as_ref() != Some(&what) {
                    tracing::warn!("plugin/etcd: {what}; the certificates from before are used on");
                    connections.said = Some(what);
                }
            }
        }
    }

    /// What the network or TLS said, as an error of this endpoint.
    pub(super) fn broken(&self, at: usize, error: &reqwest::Error) -> Failure {
        Failure {
            sent: !error.is_connect(),
            error: Error::Unreachable {
                endpoint: self.endpoint(at).to_owned(),
                what: reason(error),
            },
        }
    }

    /// Says more about an endpoint that has not what was asked for: which etcd it is, if it is one.
    pub(super) async fn explain(&self, at: usize, error: Error) -> Error {
        match error {
            Error::NoGateway { endpoint, .. } => {
                let version = timeout(VERSION_TIMEOUT, self.version(at)).await;
                Error::NoGateway {
                    endpoint,
                    version: version.ok().flatten(),
                }
            }
            error => error,
        }
    }

    async fn version(&self, at: usize) -> Option<String> {
        let url = format!("{}/version", self.endpoint(at));
        let response = self.http().get(url).send().await.ok()?;
        let body = self.error_body(response).await;
        let json: serde_json::Value = serde_json::from_slice(&body).ok()?;
        let version = json.get("etcdserver")?.as_str()?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        (version.len() <= 64 && version.chars().all(is_plain)).then(|| version.to_owned())
    }

    /// Reads a whole reply of at most `limit` octets.
    pub(super) async fn body(
        &self,
        at: usize,
        mut response: reqwest::Response,
        limit: usize,
    ) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.broken(at, &error))?
        {
            if body.len() + chunk.len() > limit {
                return Err(sent(Error::TooLarge {
                    endpoint: self.endpoint(at).to_owned(),
                    limit,
                }));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Reads what can be had of an error's body.
    pub(super) async fn error_body(&self, mut response: reqwest::Response) -> Vec<u8> {
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > ERROR_OCTETS_MAX {
                break;
            }
        }
        body
    }
}

pub(super) fn connect(files: &TlsFiles, is_secure: bool) -> Result<reqwest::Client, String> {
    // Proxies of the environment are for browsing, not for the way to our own backend; redirects likewise.
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls::config(files, is_secure)?)
        .no_proxy()
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(10))
        .pool_idle_timeout(Duration::from_secs(60))
        .build()
        .map_err(|error| reason(&error))
}

fn stamps(files: &TlsFiles) -> Vec<Stamp> {
    let own = files.identity.iter().flat_map(|(cert, key)| [cert, key]);
    let stamp = |file: &PathBuf| {
        let about = std::fs::metadata(file).ok()?;
        Some((about.modified().ok()?, about.len()))
    };
    files.ca.iter().chain(own).map(stamp).collect()
}

/// The innermost cause, which is the one that says something: "connection refused", "invalid peer certificate".
pub(super) fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no connection within {CONNECT_TIMEOUT:?}");
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}

/// No answer in time.
pub(super) fn no_answer(endpoint: &str, after: Duration) -> Error {
    Error::NoAnswer {
        endpoint: endpoint.to_owned(),
        after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(n: usize) -> Members {
        let endpoints = (0..n).map(|i| format!("http://192.0.2.{i}:2379")).collect();
        Members::new(&Config {
            endpoints,
            ..Config::default()
        })
        .expect("plain HTTP needs no files")
    }

    #[test]
    fn a_member_that_failed_is_asked_last() {
        let mut members = members(4);
        members.endpoints.sort();
        assert_eq!(members.order(), [0, 1, 2, 3]);
        members.failed(1);
        assert_eq!(members.order(), [0, 2, 3, 1]);
        members.leave();
        assert_eq!(members.which(), "http://192.0.2.2:2379".to_owned());
        assert_eq!(members.order(), [2, 3, 0, 1]);
        members.failed(2);
        assert_eq!(members.order(), [3, 2, 0, 1]);
        members.succeeded(1);
        assert_eq!(members.order(), [1, 3, 2, 0]);
    }

    #[test]
    fn the_only_member_is_not_left() {
        let members = members(1);
        members.leave();
        assert_eq!(members.order(), [0]);
    }
}
