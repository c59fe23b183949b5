//! One connection of one agent, from the challenge to the goodbye. It speaks for the machine that its
//! credential names and no other: nothing an agent says chooses a row of another machine.

mod logs;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use stagely_domain::error_chain::chain;
use stagely_domain::id::{LogStreamId, MachineId};
use stagely_domain::mask::Patterns;
use stagely_proto::agent::{self, agent_frame, hub_frame};
use stagely_proto::agent_wire::{PROTOCOL, SIGNATURE_CONTEXT};
use stagely_store::Outcome;
use stagely_store::agents::Agent;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::ca::MachineRequest;
use crate::connections::{Command, Connection, Goodbye};
use crate::credential::{self, Credential, Refused};
use crate::enrol::sha256;
use crate::error::HubError;
use crate::hub::{self, Hub};
use crate::observed;
use crate::socket::{End, Socket};

/// From the upgrade to the welcome.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Serves a connection until it is over. `credential` was checked while the request was read.
pub async fn serve(
    hub: Arc<Hub>,
    mut socket: Socket,
    credential: Result<Credential, Refused>,
    shutdown: CancellationToken,
) {
    let Ok(permit) = Arc::clone(&hub.handshakes).try_acquire_owned() else {
        return socket.end(End::Say(Goodbye::Busy(retry_after()))).await;
    };
    let Ok(credential) = credential else {
        return socket.end(End::Say(Goodbye::Refused)).await;
    };
    let opened = timeout(HANDSHAKE, open(&hub, &mut socket, &credential)).await;
    drop(permit);
    let machine = credential.machine;
    let mut session = match opened {
        Ok(Ok(opened)) => opened.with(Arc::clone(&hub), machine),
        Ok(Err(end)) => return goodbye(socket, machine, end).await,
        // The database's fault or the agent's: a machine keeps its lease while it is only put off.
        Err(_) => return goodbye(socket, machine, End::Say(Goodbye::Busy(retry_after()))).await,
    };
    tracing::info!(machine.id = %machine, epoch = session.connection.conn_epoch, "machine {machine} connected");
    let end = session.run(&mut socket, &shutdown).await;
    hub.connections.leave(machine, session.connection.conn_epoch);
    goodbye(socket, machine, end).await;
}

async fn goodbye(mut socket: Socket, machine: MachineId, end: End) {
    tracing::info!(machine.id = %machine, reason = ?end, "connection of {machine} ends");
    if end == End::Say(Goodbye::Unwanted) {
        let power_off = agent::PowerOff { reason: "the machine is not wanted any more".to_owned() };
        if socket.send(hub_frame::Body::PowerOff(power_off)).await.is_err() {
            return;
        }
    }
    socket.end(end).await;
}

/// Challenge, proof, and the claim of the machine's connection.
async fn open(hub: &Arc<Hub>, socket: &mut Socket, credential: &Credential) -> Result<Opened, End> {
    let mut nonce = [0; 32];
    SystemRandom::new().fill(&mut nonce).map_err(|_| End::Say(Goodbye::Busy(retry_after())))?;
    socket.send(hub_frame::Body::Challenge(agent::Challenge { nonce: nonce.to_vec() })).await?;
    let Some(agent_frame::Body::Hello(hello)) = socket.next().await?.body else {
        return Err(End::Say(Goodbye::Protocol("the first frame must be Hello")));
    };
    if hello.protocol != PROTOCOL {
        return Err(End::Say(Goodbye::Protocol("this hub speaks protocol 1")));
    }
    let machine = credential.machine;
    let refused = End::Say(Goodbye::Refused);
    let known = hub.store.find_agent(machine).await.map_err(|error| put_off(machine, error.into()))?;
    let Some(known) = known else { return Err(refused) };
    let Some(public_key) = proven(&known, credential, &hello, &nonce) else { return Err(refused) };
    if known.revoked_at.is_some() || !known.wanted {
        return Err(End::Say(Goodbye::Unwanted));
    }
    if credential.ran_out && known.return_until.is_none_or(|until| until <= hub.clock.now()) {
        return Err(refused);
    }
    let claim = claim(hub, machine, &public_key).await.map_err(|error| put_off(machine, error))?;
    let Some(claim) = claim else { return Err(End::Say(Goodbye::Unwanted)) };
    let entered = hub.connections.enter(machine, claim.conn_epoch);
    let Some((connection, commands)) = entered else { return Err(End::Say(Goodbye::Replaced)) };
    let welcome = agent::Welcome {
        conn_epoch: claim.conn_epoch,
        heartbeat_secs: hub.config.heartbeat_secs,
        log_offsets: claim.offsets.into_iter().collect(),
        lease_secs: hub.config.lease_secs,
    };
    let mut patterns = Patterns::default();
    let mut greeting = socket.send(hub_frame::Body::Welcome(welcome)).await;
    if let (Ok(()), Some(wish)) = (&greeting, claim.wish) {
        patterns = hub::patterns(&wish);
        connection.told(wish.generation);
        greeting = socket.send(hub_frame::Body::Desired(wish)).await;
    }
    if let Err(end) = greeting {
        hub.connections.leave(machine, claim.conn_epoch);
        return Err(end);
    }
    Ok(Opened { public_key, patterns, connection, commands })
}

/// The enrolled key, if the credential is bound to it and the agent has just proven that it holds it.
fn proven(known: &Agent, credential: &Credential, hello: &agent::Hello, nonce: &[u8]) -> Option<Vec<u8>> {
    let key = known.public_key.clone()?;
    let machine = known.machine.to_string();
    if hello.machine_id != machine || credential::thumbprint(&key) != credential.thumbprint {
        return None;
    }
    let signed = [SIGNATURE_CONTEXT, nonce, machine.as_bytes()].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key).verify(&signed, &hello.signature).ok()?;
    Some(key)
}

struct Claim {
    conn_epoch: u64,
    offsets: Vec<(String, u64)>,
    wish: Option<agent::Desired>,
}

async fn claim(hub: &Hub, machine: MachineId, public_key: &[u8]) -> Result<Option<Claim>, HubError> {
    let tx = hub.store.begin().await?;
    let accepted = tx.accept_connection(machine, public_key, &hub.id).await?;
    tx.commit().await?;
    let Some(conn_epoch) = accepted else { return Ok(None) };
    // Read after the claim: the connection before this one can append nothing more.
    let offsets = hub.store.list_log_positions(machine).await?;
    Ok(Some(Claim { conn_epoch, offsets, wish: hub.load_wish(machine).await? }))
}

struct Opened {
    public_key: Vec<u8>,
    patterns: Patterns,
    connection: Arc<Connection>,
    commands: mpsc::Receiver<Command>,
}

impl Opened {
    fn with(self, hub: Arc<Hub>, machine: MachineId) -> Session {
        Session {
            hub,
            machine,
            public_key: self.public_key,
            patterns: self.patterns,
            connection: self.connection,
            commands: self.commands,
            streams: HashMap::new(),
        }
    }
}

/// A log stream of this connection.
enum Stream {
    /// Stored up to `end`.
    Open { id: LogStreamId, end: u64 },
    /// A job that is not this machine's: taken in and thrown away.
    Foreign { end: u64 },
}

struct Session {
    hub: Arc<Hub>,
    machine: MachineId,
    public_key: Vec<u8>,
    patterns: Patterns,
    connection: Arc<Connection>,
    commands: mpsc::Receiver<Command>,
    streams: HashMap<String, Stream>,
}

impl Session {
    async fn run(&mut self, socket: &mut Socket, shutdown: &CancellationToken) -> End {
        loop {
            let step = tokio::select! {
                // Commands first: a flood of logs must not hold back a wish or a goodbye.
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(socket, command).await,
                    None => Err(End::Say(Goodbye::Replaced)),
                },
                sign = socket.next_sign() => {
                    self.connection.hear();
                    match sign {
                        Ok(Some(frame)) => self.take(socket, frame).await,
                        Ok(None) => Ok(()),
                        Err(end) => Err(end),
                    }
                }
                // The drain says goodbye before; this catches connections made meanwhile.
                () = shutdown.cancelled() => Err(End::Say(Goodbye::Restart(1))),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn obey(&mut self, socket: &mut Socket, command: Command) -> Result<(), End> {
        match command {
            Command::Wish(wish) => {
                self.patterns = hub::patterns(&wish);
                socket.send(hub_frame::Body::Desired(*wish)).await
            }
            Command::Close(goodbye) => Err(End::Say(goodbye)),
        }
    }

    async fn take(&mut self, socket: &mut Socket, frame: agent::AgentFrame) -> Result<(), End> {
        let mut next = Some(frame);
        while let Some(frame) = next.take() {
            match frame.body {
                Some(agent_frame::Body::Log(chunk)) => next = self.take_logs(socket, chunk).await?,
                Some(agent_frame::Body::Observed(report)) => self.note(report).await?,
                Some(agent_frame::Body::Renew(renew)) => self.renew(socket, &renew.csr_der).await?,
                Some(agent_frame::Body::Hello(_)) => return Err(End::Say(Goodbye::Protocol("Hello comes once"))),
                // A kind that this version does not know, or a bare acknowledgement.
                None => {}
            }
        }
        Ok(())
    }

    async fn note(&self, report: agent::Observed) -> Result<(), End> {
        let observed = observed::parse(report, &self.patterns);
        let written = async {
            let tx = self.hub.store.begin().await?;
            let noted = tx.note_observed(self.machine, self.connection.conn_epoch, &observed).await?;
            tx.commit().await.map(|()| noted)
        };
        match written.await.map_err(|error| put_off(self.machine, error.into()))? {
            Outcome::Written => Ok(()),
            Outcome::Stale => Err(self.outdated().await),
        }
    }

    async fn renew(&self, socket: &mut Socket, csr: &[u8]) -> Result<(), End> {
        let machine = self.machine;
        let request = MachineRequest::parse(csr).map_err(|_| End::Say(Goodbye::Protocol("malformed csr_der")))?;
        if request.public_key() != self.public_key {
            return Err(End::Say(Goodbye::Protocol("the key cannot be changed")));
        }
        let renewed = async {
            let certificate = self.hub.ca.issue_machine(machine, &request)?;
            let credential = self.hub.signer.issue(machine, &self.public_key, self.hub.clock.now())?;
            let tx = self.hub.store.begin().await?;
            let noted = tx.hold_connection(machine, self.connection.conn_epoch).await?;
            if noted == Outcome::Written {
                tx.note_ingress_certificate(machine, &sha256(&certificate.certificate_der)).await?;
                tx.commit().await?;
            }
            Ok::<_, HubError>((noted, certificate, credential))
        };
        let (noted, certificate, credential) = renewed.await.map_err(|error| put_off(machine, error))?;
        if noted == Outcome::Stale {
            return Err(self.outdated().await);
        }
        let answer = agent::Renewed {
            credential: credential.reveal().to_owned(),
            certificate_pem: certificate.certificate_pem,
            ca_pem: self.hub.ca.pem().to_owned(),
        };
        socket.send(hub_frame::Body::Renewed(answer)).await
    }

    /// Why a write of this connection was refused: its machine is ended, or a newer connection is there.
    async fn outdated(&self) -> End {
        match self.hub.store.find_agent(self.machine).await {
            Ok(Some(agent)) if agent.revoked_at.is_some() || !agent.wanted => End::Say(Goodbye::Unwanted),
            _ => End::Say(Goodbye::Replaced),
        }
    }
}

/// The database is away: the agent keeps what it has, and comes back.
fn put_off(machine: MachineId, error: HubError) -> End {
    tracing::warn!(machine.id = %machine, error = %chain(&error), "connection of {machine} was put off");
    End::Say(Goodbye::Busy(retry_after()))
}

/// One to five seconds, spread so that agents do not come back together.
fn retry_after() -> u32 {
    let mut byte = [0];
    // Without randomness the wait is merely not spread.
    let _ = SystemRandom::new().fill(&mut byte);
    1 + u32::from(byte[0] % 5)
}
