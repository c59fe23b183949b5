//! A hub, a database and an agent that does as it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use stagely_agent_hub::{AgentHub, Config};
use stagely_domain::id::{BuildJobId, EnvironmentId, MachineId, ProjectId, TeamId};
use stagely_domain::secret::Secret;
use stagely_proto::agent::{self, agent_frame, hub_frame};
use stagely_proto::hub::hub_client::HubClient;
use stagely_runtime::grpc::Channel;
use stagely_runtime::{Kit, Peer, Service};
use stagely_store::testing::TestDb;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Hub {
    pub address: SocketAddr,
    pub grpc: HubClient<Channel>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Hub {
    pub async fn start(db: &TestDb) -> Self {
        Self::start_with(db, Config::default()).await
    }

    /// A hub whose settings differ from the defaults.
    pub async fn start_with(db: &TestDb, config: Config) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut settings = stagely_runtime::config::load().unwrap();
        settings.common.database_url = Some(Secret::new(db.url()));
        settings.common.encryption_key = Some(Secret::new("ab".repeat(32)));
        let ports = json!({"grpc_listen": free, "admin_listen": "127.0.0.1:0", "grpc_url": format!("http://{free}")});
        let settings = settings.with("ports.agent_hub", ports);
        let shutdown = CancellationToken::new();
        let kit = Kit::bind(&settings, Peer::AgentHub, shutdown.clone()).await.unwrap();
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), drain_secs: 1, ..config };
        let hub = AgentHub::build(config, &kit).await.unwrap();
        let (address, grpc) = (hub.address(), HubClient::new(kit.connect(Peer::AgentHub).unwrap()));
        let stop = shutdown.clone();
        let task = TaskTracker::new().spawn(async move {
            hub.run(stop).await.unwrap();
            kit.drain().await;
        });
        Self { address, grpc, shutdown, task }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }

    pub async fn prepare(&self, machine: MachineId) -> (String, String) {
        let request = stagely_proto::hub::PrepareEnrolmentRequest { machine_id: machine.to_string() };
        let answer = self.grpc.clone().prepare_enrolment(request).await.unwrap().into_inner();
        (answer.token, answer.ca_pem)
    }

    pub async fn wish(&self, machine: MachineId, desired: agent::Desired) -> bool {
        let request = stagely_proto::hub::SetDesiredRequest { machine_id: machine.to_string(), desired: Some(desired) };
        self.grpc.clone().set_desired(request).await.unwrap().into_inner().accepted
    }

    /// An enrolled agent of `machine`.
    pub async fn agent(&self, machine: MachineId) -> Agent {
        let (token, ca_pem) = self.prepare(machine).await;
        let key = KeyPair::generate().unwrap();
        let (status, body) = enrol(self.address, &ca_pem, &machine.to_string(), &token, &key).await;
        assert_eq!(status, 200, "{body}");
        let credential = body["credential"].as_str().unwrap().to_owned();
        Agent { machine, key, credential, ca_pem }
    }
}

/// A team's project with an environment, as rows.
pub struct Seed {
    pub team: TeamId,
    pub project: ProjectId,
    pub env: EnvironmentId,
    account: uuid::Uuid,
}

pub async fn seed(db: &TestDb) -> Seed {
    let team = db.team("acme").await;
    let account = db.qemu_account(team).await;
    let project = db.project(team, "acme/shop", Some(account)).await;
    let env = EnvironmentId::generate();
    db.execute(&format!(
        "INSERT INTO environments (id, team_id, project_id, pr_number, preview_hash, desired, desired_sha, state, \
         ttl_secs, expires_at) VALUES ('{}', '{}', '{}', 1, 'h', 'present', 'sha', 'pending', 1, now())",
        env.uuid(),
        team.uuid(),
        project.uuid()
    ))
    .await;
    Seed { team, project, env, account: account.uuid() }
}

impl Seed {
    pub async fn preview(&self, db: &TestDb) -> MachineId {
        self.machine(db, "preview", &format!("'{}'", self.env.uuid())).await
    }

    pub async fn builder(&self, db: &TestDb) -> MachineId {
        self.machine(db, "builder", "NULL").await
    }

    async fn machine(&self, db: &TestDb, role: &str, env: &str) -> MachineId {
        let id = MachineId::generate();
        db.execute(&format!(
            "INSERT INTO machines (id, team_id, project_id, env_id, account_id, role, size, arch, state, expires_at) \
             VALUES ('{}', '{}', '{}', {env}, '{}', '{role}', 'small', 'amd64', 'booting', now() + interval '1 day')",
            id.uuid(),
            self.team.uuid(),
            self.project.uuid(),
            self.account
        ))
        .await;
        id
    }

    pub async fn job(&self, db: &TestDb, machine: MachineId) -> BuildJobId {
        let (id, run) = (BuildJobId::generate(), uuid::Uuid::now_v7());
        let (team, project, env) = (self.team.uuid(), self.project.uuid(), self.env.uuid());
        db.execute(&format!(
            "INSERT INTO workflow_runs (id, team_id, env_id, generation, sha, cause, state) VALUES \
             ('{run}', '{team}', '{env}', (SELECT count(*) FROM workflow_runs), 'sha', 'push', 'building'); \
             INSERT INTO build_jobs (id, team_id, project_id, env_id, run_id, target, platform, spec, state, machine_id) \
             VALUES ('{}', '{team}', '{project}', '{env}', '{run}', 'api', 'linux/amd64', '{{}}', 'assigned', '{}')",
            id.uuid(), machine.uuid()
        ))
        .await;
        id
    }
}

pub async fn tls(address: SocketAddr, ca_pem: &str) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

pub fn csr(key: &KeyPair) -> Vec<u8> {
    // A name that the machine must not get.
    let params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.serialize_request(key).unwrap().der().to_vec()
}

pub async fn enrol(address: SocketAddr, ca_pem: &str, machine: &str, token: &str, key: &KeyPair) -> (u16, Value) {
    let body = json!({"machine_id": machine, "token": token, "csr_der": STANDARD.encode(csr(key))});
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tls(address, ca_pem).await)).await.unwrap();
    let request = http::Request::post("/agent/v1/enrol")
        .header("host", "hub")
        .body(Full::new(bytes::Bytes::from(body.to_string())))
        .unwrap();
    let ask = async {
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    };
    let both = async { tokio::join!(ask, async { connection.await.ok() }).0 };
    timeout(DEADLINE, both).await.unwrap()
}

pub struct Agent {
    pub machine: MachineId,
    pub key: KeyPair,
    pub credential: String,
    pub ca_pem: String,
}

impl Agent {
    /// A WebSocket, before any frame.
    pub async fn dial(&self, address: SocketAddr, headers: &[(&'static str, &str)]) -> Result<Wire, Error> {
        let mut request = "wss://hub/agent/v1/connect".into_client_request().unwrap();
        let bearer = format!("Bearer {}", self.credential);
        let fixed = [("authorization", bearer.as_str()), ("sec-websocket-protocol", "stagely.agent.v1")];
        for (name, value) in fixed.iter().chain(headers) {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, _) = tokio_tungstenite::client_async(request, tls(address, &self.ca_pem).await).await?;
        Ok(Wire { socket, sent: 0 })
    }

    pub fn hello(&self, nonce: &[u8]) -> agent_frame::Body {
        let machine_id = self.machine.to_string();
        let signed = [b"stagely.agent.v1", nonce, machine_id.as_bytes()].concat();
        let signature = rcgen::SigningKey::sign(&self.key, &signed).unwrap();
        let hello = agent::Hello {
            protocol: 1,
            agent_version: "test".to_owned(),
            machine_id,
            signature,
            observed_generation: 0,
        };
        agent_frame::Body::Hello(hello)
    }

    /// A connection that was welcomed.
    pub async fn connect(&self, address: SocketAddr) -> (Wire, agent::Welcome) {
        let mut wire = self.dial(address, &[]).await.unwrap();
        let nonce = wire.challenge().await;
        wire.send(self.hello(&nonce)).await;
        match wire.next().await {
            Heard::Frame(hub_frame::Body::Welcome(welcome)) => (wire, welcome),
            other => panic!("instead of a welcome: {other:?}"),
        }
    }
}

pub enum Heard {
    Frame(hub_frame::Body),
    Closed(u16, String),
}

/// Frames hold secrets, so they cannot be printed.
impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frame(_) => f.write_str("a frame"),
            Self::Closed(code, reason) => write!(f, "close {code} ({reason})"),
        }
    }
}

pub struct Wire {
    pub socket: WebSocketStream<TlsStream<TcpStream>>,
    sent: u64,
}

impl Wire {
    pub async fn send(&mut self, body: agent_frame::Body) {
        self.sent += 1;
        self.send_frame(agent::AgentFrame { seq: self.sent, ack: 0, body: Some(body) }).await;
    }

    pub async fn send_frame(&mut self, frame: agent::AgentFrame) {
        // The hub may have hung up meanwhile: what it said is read afterwards.
        let _ = self.socket.send(Message::Binary(frame.encode_to_vec().into())).await;
    }

    pub async fn log(&mut self, stream: &str, offset: u64, content: &[u8]) {
        let chunk = agent::LogChunk { stream: stream.to_owned(), offset, content: content.to_vec(), lost: 0 };
        self.send(agent_frame::Body::Log(chunk)).await;
    }

    pub async fn challenge(&mut self) -> Vec<u8> {
        match self.next().await {
            Heard::Frame(hub_frame::Body::Challenge(challenge)) => challenge.nonce,
            other => panic!("instead of a challenge: {other:?}"),
        }
    }

    pub async fn next(&mut self) -> Heard {
        loop {
            match timeout(DEADLINE, self.socket.next()).await.expect("something within the deadline") {
                Some(Ok(Message::Binary(bytes))) => {
                    return Heard::Frame(agent::HubFrame::decode(bytes).unwrap().body.unwrap());
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    return Heard::Closed(close.code.into(), close.reason.to_string());
                }
                Some(Ok(_)) => {}
                other => return Heard::Closed(0, format!("{other:?}")),
            }
        }
    }

    /// Reads until the close and returns its code and the frames before it.
    pub async fn close_code(&mut self) -> (u16, Vec<hub_frame::Body>) {
        let mut frames = Vec::new();
        loop {
            match self.next().await {
                Heard::Frame(frame) => frames.push(frame),
                Heard::Closed(code, _) => return (code, frames),
            }
        }
    }

    pub async fn desired(&mut self) -> agent::Desired {
        match self.next().await {
            Heard::Frame(hub_frame::Body::Desired(desired)) => desired,
            other => panic!("instead of a wish: {other:?}"),
        }
    }

    /// Reads until this stream is acknowledged up to `offset`.
    pub async fn acked(&mut self, stream: &str, offset: u64) {
        loop {
            match self.next().await {
                Heard::Frame(hub_frame::Body::LogAck(ack)) if ack.offsets.get(stream) >= Some(&offset) => return,
                Heard::Frame(_) => {}
                closed @ Heard::Closed(..) => panic!("instead of an acknowledgement: {closed:?}"),
            }
        }
    }
}

/// Waits until `sql` gives `wanted`.
pub async fn wait_for(db: &TestDb, sql: &str, wanted: &str) {
    let look = async {
        while db.text(sql).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(DEADLINE, look).await.is_err() {
        panic!("{sql}: {} instead of {wanted}", db.text(sql).await);
    }
}

pub fn preview_wish(generation: u64, secret: &str) -> agent::Desired {
    let checkout = agent::Checkout { token: secret.to_owned(), ..agent::Checkout::default() };
    let preview = agent::Preview { checkout: Some(checkout), ..agent::Preview::default() };
    agent::Desired { generation, spec: Some(agent::desired::Spec::Preview(preview)) }
}
