//! TLS towards etcd: rustls with ring, which reqwest is handed ready-made, since its own choice needs files that a bare container lacks.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::client::TlsFiles;

/// The configuration; `wanted` false is for plain HTTP and loads nothing.
pub(super) fn config(files: &TlsFiles, wanted: bool) -> Result<ClientConfig, String> {
    let roots = match &files.ca {
        Some(ca) => roots_of(ca)?,
        None if wanted => system_roots(),
        None => RootCertStore::empty(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    match &files.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("could not load TLS key {}: {error}", key.display()))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| {
                    format!(
                        "could not load TLS cert {} with key {}: {error}",
                        certificate.display(),
                        key.display()
                    )
                })
        }
    }
}

fn roots_of(ca: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots
            .add(certificate)
            .map_err(|error| format!("could not read root certs of {}: {error}", ca.display()))?;
    }
    Ok(roots)
}

/// The system's CAs, and where it has none, Mozilla's.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable =
        |error: &dyn std::fmt::Display| format!("error reading {}: {error}", file.display());
    let chain = CertificateDer::pem_file_iter(file)
        .map_err(|error| unreadable(&error))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(&error))?;
    if chain.is_empty() {
        return Err(unreadable(&"no certificate in it"));
    }
    Ok(chain)
}
