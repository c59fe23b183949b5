//! Connections to ingresses, and those that rest until the next request.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use futures::FutureExt;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use stagely_domain::id::MachineId;
use stagely_domain::ingress;
use tokio::io::{AsyncReadExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

const CONNECT: Duration = Duration::from_secs(3);
/// How long a connection may rest. Ingresses keep theirs longer.
const REST: Duration = Duration::from_secs(30);
/// Resting connections per exposure and core.
const MAX_RESTING: usize = 64;

/// How often the certificates' files are looked at.
const CERT_CHECK: Duration = Duration::from_secs(5);

/// What a connection leads to. The version makes a changed route never use an old connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub machine: MachineId,
    pub address: String,
    pub exposure: String,
    pub version: u64,
}

/// One connection past the TLS handshake.
pub struct Connection {
    pub reader: ReadHalf<TlsStream<TcpStream>>,
    pub writer: WriteHalf<TlsStream<TcpStream>>,
    /// Whether it was just opened; false for one from the pool, which the machine may have closed meanwhile.
    pub fresh: bool,
}

/// How machines know us and we know them. The certificates do not live as long as we do: [`Tls::follow`] takes up new ones.
#[derive(Clone)]
pub struct Tls(Arc<Files>);

struct Files {
    config: Config,
    used: RwLock<Used>,
}

struct Used {
    connector: TlsConnector,
    written: Written,
}

/// When each of the files was last written.
type Written = [Option<SystemTime>; 3];

impl Tls {
    /// Reads the files.
    pub fn load(config: Config) -> anyhow::Result<Self> {
        let used = RwLock::new(read(&config)?);
        Ok(Self(Arc::new(Files { config, used })))
    }

    /// Uses what is new in the files for new connections, until shutdown.
    pub async fn follow(self, shutdown: CancellationToken) {
        let Files { config, used } = &*self.0;
        loop {
            tokio::select! {
                () = tokio::time::sleep(CERT_CHECK) => {}
                () = shutdown.cancelled() => return,
            }
            let known = used.read().unwrap_or_else(PoisonError::into_inner).written;
            if written(config) == known {
                continue;
            }
            match read(config) {
                Ok(new) => {
                    *used.write().unwrap_or_else(PoisonError::into_inner) = new;
                    tracing::info!("new certificates are used from the next connection to a machine on");
                }
                // Most likely one file is there and the other not yet.
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "new certificates cannot be used, the known ones are");
                }
            }
        }
    }

    /// Connects and makes sure that it is that machine: an address may be another's by now.
    pub async fn connect(&self, key: &Key) -> io::Result<Connection> {
        let name = ingress::server_name(&key.exposure, key.machine);
        let name = ServerName::try_from(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let connector = self.0.used.read().unwrap_or_else(PoisonError::into_inner).connector.clone();
        let dialled = async {
            let stream = TcpStream::connect(&key.address).await?;
            stream.set_nodelay(true)?;
            connector.connect(name, stream).await
        };
        let stream = timeout(CONNECT, dialled).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let (reader, writer) = tokio::io::split(stream);
        Ok(Connection { reader, writer, fresh: true })
    }
}

fn read(config: &Config) -> anyhow::Result<Used> {
    // Asked first: what is written meanwhile is read again.
    let written = written(config);
    let mut roots = RootCertStore::empty();
    let told = |path: &Path| format!("read {}", path.display());
    for certificate in CertificateDer::pem_file_iter(&config.ca_file).with_context(|| told(&config.ca_file))? {
        roots.add(certificate.with_context(|| told(&config.ca_file))?)?;
    }
    let chain: Vec<_> = CertificateDer::pem_file_iter(&config.client_cert_file)
        .with_context(|| told(&config.client_cert_file))?
        .collect::<Result<_, _>>()
        .with_context(|| told(&config.client_cert_file))?;
    let key = PrivateKeyDer::from_pem_file(&config.client_key_file).with_context(|| told(&config.client_key_file))?;
    let client = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(Used { connector: TlsConnector::from(Arc::new(client)), written })
}

fn written(config: &Config) -> Written {
    [&config.ca_file, &config.client_cert_file, &config.client_key_file]
        .map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok())
}

/// One core's resting connections. The lock is never contended: it only makes the futures `Send`.
#[derive(Default)]
pub struct Pool(Mutex<HashMap<Key, Vec<(Connection, Instant)>>>);

impl Pool {
    /// A resting connection that is still open.
    pub fn take(&self, key: &Key) -> Option<Connection> {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let resting = pool.get_mut(key)?;
        while let Some((mut connection, since)) = resting.pop() {
            // An open connection has nothing to say now: any byte, and the end of file, mean that it is spent.
            let silent = connection.reader.read_u8().now_or_never().is_none();
            if silent && since.elapsed() < REST {
                connection.fresh = false;
                return Some(connection);
            }
        }
        pool.remove(key);
        None
    }

    /// Lets a connection rest.
    pub fn put(&self, key: Key, connection: Connection) {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let resting = pool.entry(key).or_default();
        if resting.len() < MAX_RESTING {
            resting.push((connection, Instant::now()));
        }
    }

    /// Closes what has rested too long, also for routes that nobody asks for any more.
    pub fn sweep(&self) {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.retain(|_, resting| {
            resting.retain(|(_, since)| since.elapsed() < REST);
            !resting.is_empty()
        });
    }
}
