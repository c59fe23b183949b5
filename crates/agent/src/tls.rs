//! Connections to the hub: TLS that believes the installation's own authority and nobody else.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The hub's address is no `https` URL with a host.
    #[error("understand the hub's address {0}")]
    Address(String),
    /// The authority's certificates cannot be read.
    #[error("read the authority's certificates")]
    Authority(#[source] rustls_pki_types::pem::Error),
    /// The authority's certificates cannot be used.
    #[error("use the authority's certificates")]
    Roots(#[from] rustls::Error),
    /// Nobody answers, or not as the hub would.
    #[error("connect to {address}")]
    Connect {
        /// Host and port.
        address: String,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
}

/// The authority as the set of roots to believe.
///
/// # Errors
/// If `ca_pem` holds no usable certificate.
pub fn roots(ca_pem: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(Error::Authority)?)?;
    }
    Ok(roots)
}

/// The hub's URL for `path`.
///
/// # Errors
/// If `hub_url` is no `https` URL.
pub fn url(hub_url: &str, path: &str) -> Result<Uri, Error> {
    let bad = || Error::Address(hub_url.to_owned());
    let uri: Uri = format!("{}{path}", hub_url.trim_end_matches('/')).parse().map_err(|_| bad())?;
    if uri.scheme_str() != Some("https") || uri.host().is_none() {
        return Err(bad());
    }
    Ok(uri)
}

/// Connects to the host of `uri` within `deadline`.
///
/// # Errors
/// If nobody answers in time, or somebody else than the hub.
pub async fn connect(uri: &Uri, ca_pem: &str, deadline: Duration) -> Result<TlsStream<TcpStream>, Error> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(443);
    let address = format!("{host}:{port}");
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::Address(uri.to_string()))?;
    let config = ClientConfig::builder().with_root_certificates(roots(ca_pem)?).with_no_client_auth();
    let attempt = async {
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    };
    tokio::time::timeout(deadline, attempt)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(|source| Error::Connect { address, source })
}
