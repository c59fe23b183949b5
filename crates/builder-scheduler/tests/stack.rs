//! A scheduler with its database, and doubles of its two peers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use stagely_builder_scheduler::Config;
use stagely_domain::build::{Job, State};
use stagely_domain::id::{BuildJobId, CloudAccountId, EnvironmentId, MachineId, ProjectId, RunId, TeamId};
use stagely_domain::machine::{Arch, Role, Size};
use stagely_domain::run::Cause;
use stagely_domain::secret::Secret;
use stagely_domain::spec::Platform;
use stagely_proto::agent::Builder;
use stagely_proto::agent::desired::Spec;
use stagely_proto::hub::hub_server::{Hub, HubServer};
use stagely_proto::orchestrator::orchestrator_server::{Orchestrator, OrchestratorServer};
use stagely_proto::{hub, orchestrator};
use stagely_store::Outcome;
use stagely_store::agents::{BuildFact, Observed, SealedWish};
use stagely_store::builds::{BuildJob, NewBuildJob};
use stagely_store::environments::{NewEnvironment, PullRequest};
use stagely_store::machines::NewMachine;
use stagely_store::runs::NewRun;
use stagely_store::testing::TestDb;
use stagely_store::work::kind;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::gate::{Answer, Gate};
use crate::process::{self, Setup};

const DEADLINE: Duration = Duration::from_secs(20);

/// What the doubles remember.
#[derive(Default)]
pub struct World {
    pub acquired: Vec<MachineId>,
    pub released: Vec<MachineId>,
    pub wishes: HashMap<MachineId, (u64, Builder)>,
}

/// Both peers: they keep the rows that the real ones keep.
#[derive(Clone)]
struct Peers {
    db: Arc<TestDb>,
    world: Arc<Mutex<World>>,
    gate: Arc<Gate>,
    team: TeamId,
    account: CloudAccountId,
}

pub struct Stack {
    pub db: Arc<TestDb>,
    pub world: Arc<Mutex<World>>,
    pub project: ProjectId,
    pub team: TeamId,
    pub env: EnvironmentId,
    pub run: RunId,
    pub gate: Arc<Gate>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Stack {
    pub async fn start(config: Config) -> Self {
        Self::start_behind(Gate::default(), config).await
    }

    /// The same with one of the scheduler's calls harmed.
    pub async fn start_behind(gate: Gate, config: Config) -> Self {
        let db = Arc::new(TestDb::new().await);
        let team = db.team("acme").await;
        let account = db.qemu_account(team).await;
        let project = db.project(team, "acme/shop", Some(account)).await;
        let (env, run) = (EnvironmentId::generate(), RunId::generate());
        let tx = db.store().begin().await.unwrap();
        let pr = PullRequest {
            number: 1,
            title: String::new(),
            branch: "b".to_owned(),
            author: "a".to_owned(),
            url: String::new(),
            sha: "0".repeat(40),
        };
        let environment = NewEnvironment { id: env, team, project, pr, hash: "abc".to_owned(), ttl_secs: 3600 };
        tx.insert_environment(&environment).await.unwrap();
        let new = NewRun { id: run, team, environment: env, generation: 1, sha: "0".repeat(40), cause: Cause::Opened };
        tx.insert_run(&new).await.unwrap();
        tx.commit().await.unwrap();

        let world = Arc::new(Mutex::new(World::default()));
        let gate = Arc::new(gate);
        let peers = Peers { db: Arc::clone(&db), world: Arc::clone(&world), gate: Arc::clone(&gate), team, account };
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let peer = serve(peers, &tracker, shutdown.clone()).await;
        let mut settings = stagely_runtime::config::load().unwrap();
        settings.common.database_url = Some(Secret::new(db.url()));
        settings.common.encryption_key = Some(Secret::new("ab".repeat(32)));
        for name in ["orchestrator", "agent_hub", "builder_scheduler"] {
            let ports = serde_json::json!({
                "grpc_listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "grpc_url": format!("http://{peer}")
            });
            settings = settings.with(&format!("ports.{name}"), ports);
        }
        let setup = Setup { settings, config, gate: Arc::clone(&gate) };
        tracker.spawn(process::supervise(setup, Arc::clone(&db), shutdown.clone()));
        Self { db, world, project, team, env, run, gate, tracker, shutdown }
    }

    /// Ends everything, in order.
    pub async fn end(self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    pub async fn ask(&self, target: &str) -> BuildJobId {
        let id = BuildJobId::generate();
        let spec = Job {
            sha: "0".repeat(40),
            source: None,
            context: ".".to_owned(),
            dockerfile: "Dockerfile".to_owned(),
            stage: String::new(),
            args: [("A".to_owned(), "1".to_owned())].into(),
            secrets: Vec::new(),
            size: Size::Medium,
            image: format!("{}/{target}:abc-1", self.project.label()),
            timeout_secs: 600,
        };
        let new = NewBuildJob {
            id,
            team: self.team,
            project: self.project,
            environment: self.env,
            run: self.run,
            target: target.to_owned(),
            platform: Platform::Amd64,
            spec,
            reused: None,
        };
        let tx = self.db.store().begin().await.unwrap();
        tx.insert_build_job(&new).await.unwrap();
        tx.commit().await.unwrap();
        self.wake().await;
        id
    }

    pub async fn wake(&self) {
        let tx = self.db.store().begin().await.unwrap();
        tx.wake(kind::FLEET, self.project.uuid()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn job(&self, id: BuildJobId) -> BuildJob {
        let jobs = self.db.store().list_run_builds(self.run).await.unwrap();
        jobs.into_iter().find(|job| job.id == id).unwrap()
    }

    /// The builds that a machine is wished to have, by job, once they are exactly `jobs`.
    pub async fn sent(&self, machine: MachineId, jobs: &[BuildJobId]) -> Builder {
        let mut wanted: Vec<_> = jobs.iter().map(ToString::to_string).collect();
        wanted.sort();
        let wish = || self.world.lock().unwrap().wishes.get(&machine).map(|(_, wish)| wish.clone());
        wait_for("the wish", || async {
            wish().is_some_and(|wish| {
                let mut ids: Vec<_> = wish.builds.iter().map(|build| build.job_id.clone()).collect();
                ids.sort();
                ids == wanted
            })
        })
        .await;
        wish().unwrap()
    }

    pub async fn state(&self, id: BuildJobId, state: State) -> BuildJob {
        wait_for("the job's state", || async { self.job(id).await.state == state }).await;
        self.job(id).await
    }

    /// The machine that a job was given to.
    pub async fn machine_of(&self, id: BuildJobId) -> MachineId {
        wait_for("a builder", || async { self.job(id).await.machine.is_some() }).await;
        self.job(id).await.machine.unwrap()
    }

    /// What the agent of a machine says, written as the hub writes it.
    pub async fn report(&self, machine: MachineId, builds: Vec<BuildFact>) {
        let tx = self.db.store().begin().await.unwrap();
        let observed = Observed { builds, ..Observed::default() };
        let _ = tx.note_observed(machine, 0, &observed).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub fn world<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.world.lock().unwrap())
    }
}

pub fn fact(job: BuildJobId, state: State) -> BuildFact {
    let digest = (state == State::Succeeded).then(|| format!("sha256:{}", "1".repeat(64)));
    BuildFact { job, state, digest, failure: None, cached_steps: 0, total_steps: 0 }
}

pub async fn wait_for<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let wait = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "waited in vain for {what}");
}

async fn serve(peers: Peers, tracker: &TaskTracker, shutdown: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(OrchestratorServer::new(peers.clone()))
        .add_service(HubServer::new(peers))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.cancelled_owned());
    tracker.spawn(server);
    address
}

fn unused<T>() -> Answer<T> {
    Err(Status::unimplemented("the scheduler does not call this"))
}

impl Peers {
    async fn acquire(
        self,
        request: orchestrator::AcquireMachineRequest,
    ) -> Answer<orchestrator::AcquireMachineResponse> {
        let machine: MachineId = request.machine_id.parse().unwrap();
        let tx = self.db.store().begin().await.unwrap();
        let new = NewMachine {
            id: machine,
            team: self.team,
            project: Some(request.project_id.parse().unwrap()),
            environment: None,
            account: self.account,
            role: Role::Builder,
            size: Size::Medium,
            arch: Arch::Amd64,
            locations: Vec::new(),
            lifetime: TimeDelta::hours(1),
        };
        let _ = tx.insert_machine(&new).await.unwrap();
        tx.commit().await.unwrap();
        // As the hub does when the enrolment is prepared.
        let id = machine.uuid();
        let sql = format!(
            "INSERT INTO agent_connections (machine_id, enrol_token_hash, enrol_deadline) VALUES ('{id}', '', now())"
        );
        self.db.execute(&sql).await;
        self.world.lock().unwrap().acquired.push(machine);
        Ok(Response::new(orchestrator::AcquireMachineResponse { state: "intended".to_owned() }))
    }

    async fn release(
        self,
        request: orchestrator::ReleaseMachineRequest,
    ) -> Answer<orchestrator::ReleaseMachineResponse> {
        let machine: MachineId = request.machine_id.parse().unwrap();
        let tx = self.db.store().begin().await.unwrap();
        let _ = tx.drop_machine(machine, None).await.unwrap();
        tx.commit().await.unwrap();
        self.world.lock().unwrap().released.push(machine);
        Ok(Response::new(orchestrator::ReleaseMachineResponse {}))
    }

    async fn send(self, request: hub::SetDesiredRequest) -> Answer<hub::SetDesiredResponse> {
        let machine: MachineId = request.machine_id.parse().unwrap();
        let desired = request.desired.unwrap();
        let Some(Spec::Builder(builder)) = desired.spec else { return Err(Status::invalid_argument("no builder")) };
        let tx = self.db.store().begin().await.unwrap();
        let wish = SealedWish { generation: desired.generation, sealed: vec![1] };
        let accepted = tx.set_wish(machine, &wish).await.unwrap() == Outcome::Written;
        tx.commit().await.unwrap();
        if accepted {
            self.world.lock().unwrap().wishes.insert(machine, (desired.generation, builder));
        }
        Ok(Response::new(hub::SetDesiredResponse { accepted }))
    }
}

#[tonic::async_trait]
impl Orchestrator for Peers {
    async fn acquire_machine(
        &self,
        request: Request<orchestrator::AcquireMachineRequest>,
    ) -> Answer<orchestrator::AcquireMachineResponse> {
        self.gate.pass("acquire", self.clone().acquire(request.into_inner())).await
    }

    async fn release_machine(
        &self,
        request: Request<orchestrator::ReleaseMachineRequest>,
    ) -> Answer<orchestrator::ReleaseMachineResponse> {
        self.gate.pass("release", self.clone().release(request.into_inner())).await
    }

    async fn clone_access(
        &self,
        _: Request<orchestrator::CloneAccessRequest>,
    ) -> Answer<orchestrator::CloneAccessResponse> {
        let access = orchestrator::CloneAccessResponse {
            url: "https://git.test/acme/shop.git".to_owned(),
            username: "x-access-token".to_owned(),
            token: "clone-token".to_owned(),
            expires_at_unix: 0,
        };
        self.gate.pass("clone access", async move { Ok(Response::new(access)) }).await
    }

    async fn redeploy(
        &self,
        _: Request<orchestrator::EnvironmentRequest>,
    ) -> Answer<orchestrator::EnvironmentResponse> {
        unused()
    }
    async fn destroy(&self, _: Request<orchestrator::EnvironmentRequest>) -> Answer<orchestrator::EnvironmentResponse> {
        unused()
    }
    async fn sleep(&self, _: Request<orchestrator::SleepRequest>) -> Answer<orchestrator::EnvironmentResponse> {
        unused()
    }
    async fn wake(&self, _: Request<orchestrator::EnvironmentRequest>) -> Answer<orchestrator::EnvironmentResponse> {
        unused()
    }
    async fn pin(&self, _: Request<orchestrator::PinRequest>) -> Answer<orchestrator::EnvironmentResponse> {
        unused()
    }
    async fn expire(&self, _: Request<orchestrator::ExpireRequest>) -> Answer<orchestrator::ExpireResponse> {
        unused()
    }
    async fn replay(&self, _: Request<orchestrator::ReplayRequest>) -> Answer<orchestrator::ReplayResponse> {
        unused()
    }
    async fn sweep(&self, _: Request<orchestrator::SweepRequest>) -> Answer<orchestrator::SweepResponse> {
        unused()
    }
    async fn verify_account(
        &self,
        _: Request<orchestrator::VerifyAccountRequest>,
    ) -> Answer<orchestrator::VerifyAccountResponse> {
        unused()
    }
    async fn bake_image(&self, _: Request<orchestrator::BakeImageRequest>) -> Answer<orchestrator::BakeImageResponse> {
        unused()
    }
    async fn drop_image(&self, _: Request<orchestrator::DropImageRequest>) -> Answer<orchestrator::DropImageResponse> {
        unused()
    }
}

#[tonic::async_trait]
impl Hub for Peers {
    async fn set_desired(&self, request: Request<hub::SetDesiredRequest>) -> Answer<hub::SetDesiredResponse> {
        self.gate.pass("send", self.clone().send(request.into_inner())).await
    }

    async fn prepare_enrolment(
        &self,
        _: Request<hub::PrepareEnrolmentRequest>,
    ) -> Answer<hub::PrepareEnrolmentResponse> {
        unused()
    }
    async fn revoke(&self, _: Request<hub::RevokeRequest>) -> Answer<hub::RevokeResponse> {
        unused()
    }
    async fn stats(&self, _: Request<hub::StatsRequest>) -> Answer<hub::StatsResponse> {
        unused()
    }
}
