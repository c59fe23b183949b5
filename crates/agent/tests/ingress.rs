use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use stagely_agent::credentials::Granted;
use stagely_agent::ingress::{EDGE_NAME, Ingress};
use stagely_agent::targets::Targets;
use stagely_domain::id::MachineId;
use stagely_domain::ingress::{machine_name, server_name};
use stagely_domain::secret::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fake_hub::Authority;

/// Says `ping` to the exposure `label` as `client`; what comes back.
async fn ask(
    address: SocketAddr,
    authority: &Authority,
    client: &str,
    label: &str,
    machine: MachineId,
) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let (pem, key) = authority.issue(client);
    let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    // The certificate names the machine; the exposure is one label more, so the edge checks the name itself.
    config.dangerous().set_certificate_verifier(Arc::new(Anyone));
    let name = ServerName::try_from(server_name(label, machine)).unwrap();
    let asking = async {
        let tcp = TcpStream::connect(address).await?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        stream.write_all(b"ping").await?;
        stream.shutdown().await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    };
    tokio::time::timeout(Duration::from_secs(10), asking).await.expect("an answer in time")
}

#[tokio::test]
async fn the_edge_reaches_exposed_ports_and_nobody_else_does() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let authority = Authority::new();
    let machine = MachineId::generate();
    let (certificate_pem, key) = authority.issue(&machine_name(machine));
    let granted =
        watch::Sender::new(Granted { credential: Secret::new("x"), certificate_pem, ca_pem: authority.pem.clone() });
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = service.local_addr().unwrap();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = service.accept().await {
            let mut text = Vec::new();
            // A half-closed connection: the answer comes after the question's end.
            let _ = stream.read_to_end(&mut text).await;
            let _ = stream.write_all(&[b"pong ".as_slice(), &text].concat()).await;
        }
    });
    let targets = Targets::default();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    targets.replace(HashMap::from([("web".to_owned(), at), ("closed".to_owned(), closed)]));
    let ingress = Ingress::bind(0, machine, key, granted.subscribe(), targets).await.unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], ingress.address().unwrap().port()));
    let serving = tasks.spawn(ingress.run(tasks.clone(), cancel.clone()));

    let edge = ask(address, &authority, EDGE_NAME, "web", machine).await;
    assert_eq!(edge.unwrap(), "pong ping");
    // Unknown, and known but refused: an end without a word.
    for label in ["other", "closed"] {
        let answer = ask(address, &authority, EDGE_NAME, label, machine).await;
        assert!(answer.as_deref().unwrap_or("").is_empty(), "{answer:?}");
    }
    let stranger = ask(address, &authority, &machine_name(machine), "web", machine).await;
    assert!(stranger.is_err(), "{stranger:?}");
    let other = ask(address, &authority, EDGE_NAME, "web", MachineId::generate()).await;
    assert!(other.as_deref().unwrap_or("").is_empty(), "{other:?}");
    let foreign = ask(address, &Authority::new(), EDGE_NAME, "web", machine).await;
    assert!(foreign.is_err(), "{foreign:?}");

    // A renewed certificate is taken up.
    let renewed = Granted { credential: Secret::new("y"), ..granted.borrow().clone() };
    granted.send_replace(renewed);
    assert!(ask(address, &authority, EDGE_NAME, "web", machine).await.is_ok());
    cancel.cancel();
    serving.await.unwrap().unwrap();
}

/// Believes every server: these tests are about what the ingress believes.
#[derive(Debug)]
struct Anyone;

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
