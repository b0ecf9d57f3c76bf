//! How to reach the cluster: flags, environment and defaults that the commands on etcd share.

use std::path::PathBuf;

use clap::Args;
use skein_plugins::etcd::{Config, Credentials, TlsFiles, parse_endpoint};

/// What every command on etcd is told about it.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Cluster {
    /// URLs of the cluster's members, with commas; without it the Dnsfile's, ETCD_ENDPOINTS, ETCD_MACHINES, then http://127.0.0.1:2379
    #[arg(
        long,
        visible_alias = "etcd",
        value_name = "URL,…",
        value_delimiter = ','
    )]
    pub(crate) endpoint: Vec<String>,

    /// First part of every key; skydns without it
    #[arg(long, visible_alias = "path-prefix", value_name = "PREFIX")]
    pub(crate) path: Option<String>,

    /// CA certificates to check the members against (https); the system's without it
    #[arg(long, value_name = "FILE", env = "ETCD_CACERT")]
    pub(crate) ca: Option<PathBuf>,

    /// Our certificate, with --key
    #[arg(long, value_name = "FILE", env = "ETCD_TLSPEM", requires = "key")]
    pub(crate) cert: Option<PathBuf>,

    /// Our certificate's key
    #[arg(long, value_name = "FILE", env = "ETCD_TLSKEY", requires = "cert")]
    pub(crate) key: Option<PathBuf>,

    /// User of etcd; the password is read from ETCD_PASSWORD
    #[arg(long, value_name = "NAME", env = "ETCD_USERNAME")]
    pub(crate) user: Option<String>,
}

impl Cluster {
    /// The endpoints as they were written: the flag's, `from_file`, the environment's, or the default.
    pub(crate) fn endpoints(&self, from_file: &[String]) -> Vec<String> {
        let variable = |name: &str| {
            let value = std::env::var(name).unwrap_or_default();
            let urls = value
                .split(',')
                .map(str::trim)
                .filter(|url| !url.is_empty());
            urls.map(str::to_owned).collect::<Vec<_>>()
        };
        let sources = [
            self.endpoint.clone(),
            from_file.to_vec(),
            variable("ETCD_ENDPOINTS"),
            variable("ETCD_MACHINES"),
        ];
        let said = sources.into_iter().find(|urls| !urls.is_empty());
        said.unwrap_or_else(|| vec!["http://127.0.0.1:2379".into()])
    }

    /// For the client: flags and environment before what the Dnsfile says. The error is one of usage.
    pub(crate) fn config(&self, file: &FromFile) -> Result<Config, String> {
        let endpoints = self.endpoints(&file.endpoints);
        let scheme = if file.tls.is_some() { "https" } else { "http" };
        let endpoints = endpoints
            .iter()
            .map(|url| parse_endpoint(url, scheme))
            .collect::<Result<_, _>>()?;
        let credentials = match &self.user {
            None => file.credentials.clone(),
            Some(user) => Some(Credentials {
                user: user.clone(),
                password: std::env::var("ETCD_PASSWORD")
                    .map_err(|_| "--user needs the password in ETCD_PASSWORD".to_owned())?,
            }),
        };
        let from_file = file.tls.clone().unwrap_or_default();
        Ok(Config {
            endpoints,
            credentials,
            tls: TlsFiles {
                ca: self.ca.clone().or(from_file.ca),
                identity: self
                    .cert
                    .clone()
                    .zip(self.key.clone())
                    .or(from_file.identity),
            },
        })
    }

    /// `/skydns/`: where all keys are.
    pub(crate) fn prefix(&self, file: &FromFile) -> Result<String, String> {
        let said = self.path.as_deref().or(file.path.as_deref());
        let segments = said.unwrap_or("skydns").split('/');
        let segments: Vec<&str> = segments.filter(|segment| !segment.is_empty()).collect();
        match segments.is_empty() {
            true => {
                Err("--path is empty; write the first part of the keys, like skydns".to_owned())
            }
            false => Ok(format!("/{}/", segments.join("/"))),
        }
    }
}

/// What an `etcd` line of a Dnsfile says about the cluster.
#[derive(Clone, Default)]
pub(crate) struct FromFile {
    pub(crate) endpoints: Vec<String>,
    pub(crate) path: Option<String>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) tls: Option<TlsFiles>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_the_file() {
        let file = FromFile {
            endpoints: vec!["http://192.0.2.1:2379".into()],
            path: Some("/a/b/".into()),
            ..FromFile::default()
        };
        let flags = Cluster::default();
        assert_eq!(flags.endpoints(&file.endpoints), file.endpoints);
        assert_eq!(flags.prefix(&file).as_deref(), Ok("/a/b/"));
        let flags = Cluster {
            endpoint: vec!["192.0.2.2".into()],
            path: Some("skydns".into()),
            ..Cluster::default()
        };
        assert_eq!(flags.prefix(&file).as_deref(), Ok("/skydns/"));
        let config = flags.config(&file).expect("it is right");
        assert_eq!(config.endpoints, ["http://192.0.2.2:2379"]);
        let empty = Cluster {
            path: Some("//".into()),
            ..Cluster::default()
        };
        assert!(empty.prefix(&file).is_err());
    }
}
