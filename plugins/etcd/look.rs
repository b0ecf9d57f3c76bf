//! One request to one endpoint, for those who ask what is wrong with it: no other endpoint instead, no token, no retry.

use std::time::Duration;

use tokio::time::timeout;

use super::client::Config;
use super::members::{connect, reason};

/// From the first octet to the last.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Octets of a reply that are read: a page of metrics is the largest.
const BODY_OCTETS_MAX: usize = 8 << 20;

/// What came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// HTTP status.
    pub status: u16,
    /// The body, as far as it is read.
    pub body: Vec<u8>,
    /// The header `Date`.
    pub date: Option<String>,
    /// The header `X-Etcd-Cluster-Id` of the v2 API, hexadecimal.
    pub cluster_id: Option<String>,
}

/// Asks an endpoint (a URL without a path) for a path; with a body it is a POST of JSON. The error is the network's or TLS's.
pub async fn look(
    config: &Config,
    endpoint: &str,
    path: &str,
    body: Option<&str>,
) -> Result<Look, String> {
    let http = connect(&config.tls, endpoint.starts_with("https:"))?;
    let url = format!("{endpoint}{path}");
    let request = match body {
        None => http.get(url),
        Some(body) => http.post(url).body(body.to_owned()),
    };
    let asking = async {
        let mut response = request.send().await.map_err(|error| reason(&error))?;
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let mut look = Look {
            status: response.status().as_u16(),
            body: Vec::new(),
            date: header("date"),
            cluster_id: header("x-etcd-cluster-id"),
        };
        while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error))? {
            look.body.extend_from_slice(&chunk);
            if look.body.len() > BODY_OCTETS_MAX {
                break;
            }
        }
        Ok(look)
    };
    timeout(TIMEOUT, asking)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")))
}
