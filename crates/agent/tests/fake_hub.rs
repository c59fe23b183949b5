//! A hub of one machine: enrols it, speaks the protocol, and does what a test tells it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use stagely_proto::agent::agent_frame::Body as Up;
use stagely_proto::agent::hub_frame::Body as Down;
use stagely_proto::agent::{AgentFrame, Challenge, Desired, HubFrame, LogAck, Observed, Welcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};
use tokio_util::task::TaskTracker;

/// The installation's authority.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for `name`, and its key (PKCS#8, DER).
    pub fn issue(&self, name: &str) -> (String, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_der())
    }

    fn sign(&self, csr_der: &[u8]) -> (String, Vec<u8>) {
        let der = CertificateSigningRequestDer::from(csr_der.to_vec());
        let request = CertificateSigningRequestParams::from_der(&der).unwrap();
        let key = rcgen::PublicKeyData::der_bytes(&request.public_key).to_vec();
        (request.signed_by(&self.issuer).unwrap().pem(), key)
    }
}

/// What a test tells the hub to do with its connection.
pub enum Order {
    Send(Desired),
    Close(u16, &'static str),
    /// Cut the line without a word.
    Cut,
}

/// What the hub has seen.
#[derive(Default)]
pub struct Seen {
    pub enrolments: usize,
    pub connections: usize,
    /// Connections that were not welcomed.
    pub turned_away: usize,
    pub observed: Vec<Observed>,
    pub logs: HashMap<String, Vec<u8>>,
    key: Vec<u8>,
}

#[derive(Clone)]
pub struct FakeHub {
    pub address: SocketAddr,
    pub authority: Arc<Authority>,
    pub seen: Arc<Mutex<Seen>>,
    orders: Arc<tokio::sync::Mutex<mpsc::Receiver<Order>>>,
    pub tell: mpsc::Sender<Order>,
    lease_secs: u32,
    /// Sent at each connection, as a hub does.
    pub desired: Arc<Mutex<Option<Desired>>>,
    /// Said in the place of a welcome.
    pub goodbye: Arc<Mutex<Option<(u16, &'static str)>>>,
}

impl FakeHub {
    pub async fn start(tasks: &TaskTracker) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = Arc::new(Authority::new());
        let (pem, key) = authority.issue("127.0.0.1");
        let chain = vec![pem_der(&pem)];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let (tell, orders) = mpsc::channel(16);
        let hub = Self {
            address: listener.local_addr().unwrap(),
            authority,
            seen: Arc::default(),
            orders: Arc::new(tokio::sync::Mutex::new(orders)),
            tell,
            lease_secs: 600,
            desired: Arc::default(),
            goodbye: Arc::default(),
        };
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (server, children) = (hub.clone(), tasks.clone());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (hub, acceptor) = (server.clone(), acceptor.clone());
                children.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        hub.serve(stream).await;
                    }
                });
            }
        });
        hub
    }

    pub fn log(&self, stream: &str) -> String {
        let seen = self.seen.lock().unwrap();
        String::from_utf8(seen.logs.get(stream).cloned().unwrap_or_default()).unwrap()
    }

    pub fn last(&self) -> Option<Observed> {
        self.seen.lock().unwrap().observed.last().cloned()
    }

    async fn serve(&self, mut stream: TlsStream<TcpStream>) {
        // One byte tells `POST` from `GET`; the handshake needs it back.
        let mut first = [0];
        if stream.read_exact(&mut first).await.is_err() {
            return;
        }
        let stream = Again { first: Some(first[0]), stream };
        if first == *b"P" {
            self.enrol(stream).await;
        } else {
            self.connect(stream).await;
        }
    }

    async fn enrol(&self, mut stream: Again) {
        let mut bytes = Vec::new();
        let (head, body) = loop {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).await.unwrap();
            bytes.extend_from_slice(&piece[..count]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && body.ends_with('}')
            {
                break (head.to_owned(), body.to_owned());
            }
        };
        assert!(head.starts_with("POST /agent/v1/enrol"), "{head}");
        let ask: serde_json::Value = serde_json::from_str(&body).unwrap();
        if ask["token"] != "one-time" {
            let answer = r#"{"code":"token_used","message":"somebody else used it"}"#;
            let head = format!("HTTP/1.1 409 Conflict\r\ncontent-length: {}\r\n\r\n", answer.len());
            stream.write_all((head + answer).as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
            return;
        }
        let csr = STANDARD.decode(ask["csr_der"].as_str().unwrap()).unwrap();
        let (certificate_pem, spki) = self.authority.sign(&csr);
        {
            let mut seen = self.seen.lock().unwrap();
            seen.enrolments += 1;
            seen.key = spki;
        }
        let answer = serde_json::json!({
            "credential": "header.e30.signature", "certificate_pem": certificate_pem, "ca_pem": self.authority.pem,
        })
        .to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all((head + &answer).as_bytes()).await.unwrap();
        let _ = stream.shutdown().await;
    }

    #[expect(clippy::result_large_err, reason = "the library's own signature")]
    async fn connect(&self, stream: Again) {
        let check = |request: &Request, mut response: Response| {
            let header = |name| request.headers().get(name).map(|value| value.as_bytes().to_vec());
            assert_eq!(header("authorization").unwrap(), b"Bearer header.e30.signature");
            let protocol = header("sec-websocket-protocol").unwrap();
            assert_eq!(protocol, b"stagely.agent.v1");
            let protocol = request.headers()["sec-websocket-protocol"].clone();
            response.headers_mut().insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, check).await.unwrap();
        let mut sent = 0;
        let mut frame = |ack, body| {
            sent += 1;
            let frame = HubFrame { seq: sent, ack, body: Some(body) };
            Message::Binary(frame.encode_to_vec().into())
        };
        let nonce = vec![7; 32];
        let challenge = Down::Challenge(Challenge { nonce: nonce.clone() });
        socket.send(frame(0, challenge)).await.unwrap();
        let Some(Ok(Message::Binary(bytes))) = socket.next().await else { return };
        let Some(Up::Hello(hello)) = AgentFrame::decode(bytes).unwrap().body else { panic!("no hello") };
        let signed = [b"stagely.agent.v1", nonce.as_slice(), hello.machine_id.as_bytes()].concat();
        let key = self.seen.lock().unwrap().key.clone();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(&signed, &hello.signature).unwrap();
        let goodbye = *self.goodbye.lock().unwrap();
        if let Some((code, reason)) = goodbye {
            self.seen.lock().unwrap().turned_away += 1;
            let close = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
            let _ = socket.close(Some(close)).await;
            while let Some(Ok(_)) = socket.next().await {}
            return;
        }
        // An older connection's orders end with it.
        let mut orders = self.orders.lock().await;
        let log_offsets = {
            let mut seen = self.seen.lock().unwrap();
            seen.connections += 1;
            seen.logs.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect()
        };
        let welcome = Welcome { conn_epoch: 1, heartbeat_secs: 1, log_offsets, lease_secs: self.lease_secs };
        socket.send(frame(0, Down::Welcome(welcome))).await.unwrap();
        let wish = self.desired.lock().unwrap().clone();
        if let Some(wish) = wish {
            socket.send(frame(0, Down::Desired(wish))).await.unwrap();
        }
        loop {
            let message = tokio::select! {
                message = socket.next() => message,
                order = orders.recv() => match order {
                    Some(Order::Send(wish)) => {
                        *self.desired.lock().unwrap() = Some(wish.clone());
                        socket.send(frame(0, Down::Desired(wish))).await.unwrap();
                        continue;
                    }
                    Some(Order::Close(code, reason)) => {
                        let close = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
                        let _ = socket.close(Some(close)).await;
                        while let Some(Ok(_)) = socket.next().await {}
                        return;
                    }
                    Some(Order::Cut) | None => return,
                },
            };
            let Some(Ok(message)) = message else { return };
            let Message::Binary(bytes) = message else { continue };
            let up = AgentFrame::decode(bytes).unwrap();
            match up.body {
                Some(Up::Observed(observed)) => self.seen.lock().unwrap().observed.push(observed),
                Some(Up::Log(chunk)) => {
                    assert!(chunk.content.len() <= 32 * 1024);
                    let stored = {
                        let mut seen = self.seen.lock().unwrap();
                        let stored = seen.logs.entry(chunk.stream.clone()).or_default();
                        assert_eq!(chunk.lost, 0);
                        let offset = usize::try_from(chunk.offset).unwrap();
                        assert!(offset <= stored.len(), "a hole in {}", chunk.stream);
                        stored.truncate(offset);
                        stored.extend_from_slice(&chunk.content);
                        stored.len() as u64
                    };
                    let ack = LogAck { offsets: HashMap::from([(chunk.stream, stored)]) };
                    if socket.send(frame(up.seq, Down::LogAck(ack))).await.is_err() {
                        return;
                    }
                }
                _ => {}
            }
        }
    }
}

fn pem_der(pem: &str) -> rustls_pki_types::CertificateDer<'static> {
    rustls_pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap()
}

/// A stream with its first byte put back.
struct Again {
    first: Option<u8>,
    stream: TlsStream<TcpStream>,
}

impl tokio::io::AsyncRead for Again {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if let Some(first) = self.first.take() {
            buf.put_slice(&[first]);
            return std::task::Poll::Ready(Ok(()));
        }
        std::pin::Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Again {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
