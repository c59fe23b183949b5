//! One edge, its routes, and machines whose certificates are signed by the CA that the edge trusts.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use stagely_cache::Cache;
use stagely_domain::id::{EnvironmentId, MachineId};
use stagely_domain::ingress;
use stagely_domain::route::{Entry, Notice, Rule, State, Target};
use stagely_edge_proxy::EdgeProxy;
use stagely_runtime::{Kit, Peer, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The authority's certificate, the edge's, and its key.
const FILES: [&str; 3] = ["ca.pem", "edge.pem", "edge.key"];

pub struct Rig {
    pub edge: SocketAddr,
    pub admin: SocketAddr,
    pub cache: Cache,
    ca: CertifiedIssuer<'static, KeyPair>,
    tracker: TaskTracker,
    version: std::sync::atomic::AtomicU64,
    shutdown: CancellationToken,
    files: tempfile::TempDir,
}

impl Drop for Rig {
    /// The edge's threads end with it, or the test would wait for them for ever.
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A machine: answers every request with what it was told, and remembers what it was sent.
pub struct Machine {
    pub id: MachineId,
    pub address: String,
    pub heard: Arc<Mutex<Vec<u8>>>,
    pub connections: Arc<std::sync::atomic::AtomicU32>,
}

#[expect(clippy::disallowed_methods, reason = "tests are configured by the environment")]
pub fn redis_url() -> String {
    std::env::var("STAGELY_TEST_REDIS_URL")
        .expect("STAGELY_TEST_REDIS_URL is not set: run `cargo xtask test integration`")
}

impl Rig {
    /// An edge that has read that there are no routes.
    pub async fn start() -> Self {
        let rig = Self::start_with(&redis_url()).await;
        rig.cache.rebuild_routes(&[], 0).await.unwrap();
        rig.until("nobody.example", |answer| answer.starts_with("HTTP/1.1 404")).await;
        rig
    }

    /// An edge with its Redis at `url` and nothing in it that was ever made whole.
    pub async fn start_with(url: &str) -> Self {
        stagely_runtime::install_crypto();
        let files = tempfile::tempdir().unwrap();
        let ca = authority(files.path());
        let [ca_file, cert_file, key_file] = FILES.map(|name| files.path().join(name));
        let prefix = format!("test:{}:", uuid::Uuid::new_v4().simple());
        let zero = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut settings = stagely_runtime::config::load().unwrap();
        settings.common.redis_url = Some(stagely_domain::secret::Secret::new(url));
        let admin = free().await;
        let settings = settings
            .with("ports.edge_proxy.grpc_listen", zero)
            .with("ports.edge_proxy.admin_listen", admin)
            .with("edge_proxy.listen", zero)
            .with("edge_proxy.workers", 1)
            .with("edge_proxy.client_cert_file", cert_file)
            .with("edge_proxy.client_key_file", key_file)
            .with("edge_proxy.ca_file", ca_file)
            .with("edge_proxy.redis_prefix", &prefix);
        let shutdown = CancellationToken::new();
        let kit = Kit::bind(&settings, Peer::EdgeProxy, shutdown.clone()).await.unwrap();
        let edge = EdgeProxy::build(settings.service(Peer::EdgeProxy).unwrap(), &kit).await.unwrap();
        let (address, stop) = (edge.address(), shutdown.clone());
        let tracker = TaskTracker::new();
        tracker.spawn(async move {
            let _kit = kit;
            edge.run(shutdown).await.unwrap();
        });
        let cache = Cache::connect(&redis_url(), &prefix).await.unwrap();
        Self { edge: address, admin, cache, ca, tracker, version: 1.into(), shutdown: stop, files }
    }

    /// From now on machines and the edge's files have their certificates from another authority.
    pub fn change_authority(&mut self) {
        self.ca = authority(self.files.path());
    }

    /// A machine that answers with `answer`, byte for byte, whatever it is asked.
    pub async fn machine(&self, answer: &'static [u8]) -> Machine {
        let id = MachineId::generate();
        self.machine_as(id, id, answer).await
    }

    /// A machine that says it is `shown`.
    pub async fn machine_as(&self, id: MachineId, shown: MachineId, answer: &'static [u8]) -> Machine {
        let name = ingress::machine_name(shown);
        let (certificate, key) = issue(&self.ca, &[name.clone(), format!("*.{name}")]);
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let edges = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let config =
            rustls::ServerConfig::builder().with_client_cert_verifier(edges).with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (heard, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(std::sync::atomic::AtomicU32::new(0)));
        let (sink, count, tracker) = (Arc::clone(&heard), Arc::clone(&connections), self.tracker.clone());
        self.tracker.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, sink) = (acceptor.clone(), Arc::clone(&sink));
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                tracker.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut piece = [0; 16 * 1024];
                    let mut since = Vec::new();
                    while let Ok(length) = stream.read(&mut piece).await {
                        if length == 0 {
                            return;
                        }
                        sink.lock().await.extend_from_slice(&piece[..length]);
                        since.extend_from_slice(&piece[..length]);
                        if is_whole(&since) {
                            since.clear();
                            if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
                                return;
                            }
                            if answer.starts_with(b"HTTP/1.1 101 ") {
                                return echo(stream, &sink).await;
                            }
                        }
                    }
                });
            }
        });
        Machine { id, address, heard, connections }
    }

    /// Publishes a host's entry and waits until the edge has it.
    pub async fn route(&self, host: &str, state: State, target: Option<Target>, notice: Notice) -> Entry {
        let version = self.version.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let entry =
            Entry { host: host.to_owned(), version, environment: EnvironmentId::generate(), state, target, notice };
        self.cache.publish_routes(std::slice::from_ref(&entry)).await.unwrap();
        entry
    }

    /// A route to `web` of a machine for everything.
    pub async fn lead(&self, host: &str, machine: &Machine) -> Entry {
        let rules = vec![Rule { path: "/".to_owned(), exposure: ingress::label("web", 80) }];
        let target = Target { machine: machine.id, address: machine.address.clone(), rules };
        let entry = self.route(host, State::Ready, Some(target), Notice::default()).await;
        self.until(host, |answer| !answer.starts_with("HTTP/1.1 404")).await;
        entry
    }

    /// Asks until the answer is as wanted, at most ten seconds.
    pub async fn until(&self, host: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let answer =
                self.raw(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(tokio::time::Instant::now() < deadline, "{answer}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether the edge says that it is ready.
    pub async fn is_ready(&self) -> bool {
        let ask = b"GET /readyz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n";
        Self::raw_at(self.admin, ask).await.starts_with("HTTP/1.1 200")
    }

    /// Sends bytes on a new connection and reads until the edge closes it or is silent for a while.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        Self::raw_at(self.edge, bytes).await
    }

    async fn raw_at(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let mut piece = [0; 16 * 1024];
        while let Ok(Ok(length)) = tokio::time::timeout(Duration::from_millis(1500), stream.read(&mut piece)).await {
            if length == 0 {
                break;
            }
            answer.extend_from_slice(&piece[..length]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// An address that nobody listens at.
pub async fn free() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap()
}

/// What a machine speaks that has switched protocols: everything comes back, and `bye` is the end. What it heard is known only
/// when either side has left.
async fn echo(mut stream: TlsStream<TcpStream>, sink: &Mutex<Vec<u8>>) {
    let (mut heard, mut piece) = (Vec::new(), [0; 1024]);
    while let Ok(length @ 1..) = stream.read(&mut piece).await {
        heard.extend_from_slice(&piece[..length]);
        let ends = heard.ends_with(b"bye");
        if ends || stream.write_all(&piece[..length]).await.is_err() || stream.flush().await.is_err() {
            break;
        }
    }
    let _ = stream.shutdown().await;
    sink.lock().await.extend_from_slice(&heard);
}

/// Whether a request's head is there, and its body when that comes in chunks.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    !head.contains("transfer-encoding: chunked") || body.ends_with("0\r\n\r\n")
}

/// A new authority, and what the edge has from it, in the edge's files.
fn authority(directory: &Path) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let (certificate, key) = issue(&ca, &["edge.stagely.internal".to_owned()]);
    for (name, text) in FILES.into_iter().zip([ca.pem(), certificate, key]) {
        std::fs::write(directory.join(name), text).unwrap();
    }
    ca
}

fn issue(ca: &CertifiedIssuer<'static, KeyPair>, names: &[String]) -> (String, String) {
    let mut params = CertificateParams::new(names.to_vec()).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}
