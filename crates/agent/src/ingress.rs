//! The one door into the machine: TLS 1.3, for the edge alone (its certificate must come from the installation's
//! authority and name `edge.stagely.internal`). The server name says which exposed port is meant; after the
//! handshake bytes are passed on as they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use stagely_domain::id::MachineId;
use stagely_domain::ingress::parse_server_name;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::credentials::Granted;
use crate::targets::Targets;
use crate::tls;

mod copy;
mod edge;

/// The name in the edge's certificate.
pub const EDGE_NAME: &str = "edge.stagely.internal";
/// The most connections at once; more wait.
const MOST_CONNECTIONS: usize = 4096;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Why the ingress cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be taken.
    #[error("listen on port {port}")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The certificate, key or authority cannot be used.
    #[error("set up the ingress's TLS")]
    Tls(#[from] rustls::Error),
    /// The certificate cannot be read.
    #[error("read the ingress's certificate")]
    Certificate(#[from] rustls_pki_types::pem::Error),
    /// The authority cannot be used.
    #[error(transparent)]
    Authority(#[from] tls::Error),
    /// The authority cannot judge clients.
    #[error("judge the edge's certificate")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The ingress, listening.
pub struct Ingress {
    listener: TcpListener,
    machine: MachineId,
    key: Vec<u8>,
    granted: watch::Receiver<Granted>,
    targets: Targets,
}

impl Ingress {
    /// Takes the port.
    ///
    /// # Errors
    /// If it is taken.
    pub async fn bind(
        port: u16,
        machine: MachineId,
        key: Vec<u8>,
        granted: watch::Receiver<Granted>,
        targets: Targets,
    ) -> Result<Self, Error> {
        let listen = async {
            // Both families where the machine has both.
            match TcpListener::bind(("::", port)).await {
                Ok(listener) => Ok(listener),
                Err(_) => TcpListener::bind(("0.0.0.0", port)).await,
            }
        };
        let listener = listen.await.map_err(|source| Error::Listen { port, source })?;
        Ok(Self { listener, machine, key, granted, targets })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until cancelled. A renewed certificate is used from the next connection on.
    ///
    /// # Errors
    /// If the first certificate cannot be used.
    pub async fn run(mut self, tasks: TaskTracker, cancel: CancellationToken) -> Result<(), Error> {
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let mut acceptor = acceptor(&self.granted.borrow_and_update(), &self.key)?;
        loop {
            let accept = async {
                let permit = room.clone().acquire_owned().await;
                (self.listener.accept().await, permit)
            };
            let (accepted, permit) = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                Ok(()) = self.granted.changed() => {
                    let granted = self.granted.borrow_and_update().clone();
                    match crate::ingress::acceptor(&granted, &self.key) {
                        Ok(fresh) => acceptor = fresh,
                        Err(error) => warn!(%error, "the renewed certificate cannot be used"),
                    }
                    continue;
                }
                accepted = accept => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (acceptor, targets, machine) = (acceptor.clone(), self.targets.clone(), self.machine);
            let cancel = cancel.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = serve(stream, &acceptor, &targets, machine) => {}
                }
                drop(permit);
            });
        }
    }
}

fn acceptor(granted: &Granted, key: &[u8]) -> Result<TlsAcceptor, Error> {
    let roots = Arc::new(tls::roots(&granted.ca_pem)?);
    let verifier = WebPkiClientVerifier::builder(roots).build()?;
    let chain = CertificateDer::pem_slice_iter(granted.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
    let config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_client_cert_verifier(Arc::new(edge::OnlyEdge::new(verifier)))
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(stream: TcpStream, acceptor: &TlsAcceptor, targets: &Targets, machine: MachineId) {
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream));
    let mut stream = match handshake.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "a connection was refused"),
        Err(_) => return debug!("a handshake took too long"),
    };
    match reach(&stream, targets, machine).await {
        Some(service) => copy::both_ways(stream, service).await,
        // Closed properly, so that the edge sees an end and not a fault on the way.
        None => {
            let _ = tokio::time::timeout(CONNECT_DEADLINE, stream.shutdown()).await;
        }
    }
}

/// Connects to what the server name asks for. A container may just have moved: one more look is taken.
async fn reach(stream: &TlsStream<TcpStream>, targets: &Targets, machine: MachineId) -> Option<TcpStream> {
    let (label, asked) = parse_server_name(stream.get_ref().1.server_name()?)?;
    if asked != machine {
        return None;
    }
    let address = targets.find(label)?;
    let connect = |address| tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(address));
    let service = match connect(address).await {
        Ok(Ok(service)) => service,
        Ok(Err(_)) | Err(_) => {
            targets.suspect();
            tokio::time::sleep(Duration::from_millis(200)).await;
            let moved = targets.find(label).filter(|now| *now != address)?;
            connect(moved).await.ok()?.ok()?
        }
    };
    let _ = service.set_nodelay(true);
    Some(service)
}
