mod properties;

use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::build;
use stagely_domain::compose;
use stagely_domain::environment::State;
use stagely_domain::failure::Code;
use stagely_domain::id::{BuildJobId, CloudAccountId, EnvironmentId, MachineId, ProjectId, RunId, TeamId};
use stagely_domain::machine::{self, Arch, Role, Size};
use stagely_domain::route;
use stagely_domain::run;
use stagely_domain::spec::{Platform, Reading, RepoPath, Resolved, resolve};
use stagely_store::agents::{Agent, Observed, Phase};
use stagely_store::builds::BuildJob;
use stagely_store::environments::{Environment, PullRequest};
use stagely_store::machines::Machine;
use stagely_store::runs::Run;
use stagely_store::{Power, Presence};

use super::{Op, Snapshot, plan};
use crate::failures::failure;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn snapshot() -> Snapshot {
    let pr = PullRequest {
        number: 1,
        title: "t".into(),
        branch: "b".into(),
        author: "a".into(),
        url: "u".into(),
        sha: "0".repeat(40),
    };
    let env = Environment {
        id: EnvironmentId::generate(),
        team: TeamId::generate(),
        project: ProjectId::generate(),
        pr,
        hash: "x7k2".into(),
        desired: Presence::Present,
        power: Power::Awake,
        generation: 3,
        state: State::Queued,
        reason: None,
        pinned: false,
        ttl_secs: 60,
        expires_at: now(),
        sleep_after_secs: None,
        last_activity_at: now(),
        created_at: now(),
        updated_at: now(),
        gone_at: None,
    };
    Snapshot {
        env,
        run: None,
        live_at: None,
        builds: Vec::new(),
        machines: Vec::new(),
        newest: None,
        agent: None,
        hears_others: false,
        routes: Vec::new(),
        costs: Vec::new(),
    }
}

fn spec() -> Resolved {
    let text = "services:\n  web: {build: ./web, ports: ['80:3000']}\n";
    let mut files = compose::Files::default();
    files.add(&RepoPath::parse("c.yml").unwrap(), Some(text));
    resolve(Reading::default(), &files).unwrap()
}

/// A route to the newest machine.
fn entry(of: &Snapshot, state: route::State) -> route::Entry {
    let (host, notice) = ("x7k2.preview.test".to_owned(), route::Notice::default());
    let target = of.machines.last().map(|machine| route::Target {
        machine: machine.id,
        address: machine.address.clone().unwrap_or_default(),
        rules: Vec::new(),
    });
    route::Entry { host, version: 1, environment: of.env.id, state, target, notice }
}

fn run(snapshot: &Snapshot, state: run::State) -> Run<Resolved> {
    Run {
        id: RunId::generate(),
        environment: snapshot.env.id,
        generation: snapshot.env.generation,
        sha: snapshot.env.pr.sha.clone(),
        cause: run::Cause::Push,
        state,
        spec: Some(spec()),
        failure: None,
        created_at: now(),
        live_at: None,
        finished_at: None,
    }
}

fn machine(snapshot: &Snapshot, state: machine::State) -> Machine {
    Machine {
        id: MachineId::generate(),
        team: snapshot.env.team,
        project: Some(snapshot.env.project),
        environment: Some(snapshot.env.id),
        account: CloudAccountId::generate(),
        role: Role::Preview,
        size: Size::Small,
        arch: Arch::Amd64,
        desired: Presence::Present,
        power: Power::Awake,
        state,
        locations: Vec::new(),
        offering: None,
        tried: Vec::new(),
        refusals: 0,
        image: None,
        provider_id: None,
        address: Some("127.0.0.1:1".into()),
        failure: None,
        create_deadline: None,
        expires_at: now(),
        intended_at: now(),
        placed_at: None,
        enrolled_at: None,
        sleep_asked_at: None,
        drop_at: None,
        gone_at: None,
    }
}

fn agent(snapshot: &Snapshot, desired: u64, observed: u64, phase: Phase) -> Agent {
    Agent {
        machine: MachineId::generate(),
        team: snapshot.env.team,
        project: snapshot.env.project,
        environment: Some(snapshot.env.id),
        role: Role::Preview,
        wanted: true,
        return_until: None,
        enrolled_at: Some(now()),
        public_key: None,
        conn_epoch: 1,
        hub_id: None,
        connected_at: Some(now()),
        last_seen_at: Some(now()),
        revoked_at: None,
        suspect_at: None,
        desired_generation: desired,
        observed_generation: observed,
        observed: Some(Observed {
            generation: observed,
            phase,
            steps: Vec::new(),
            services: Vec::new(),
            failure: (phase == Phase::Failed).then(|| failure(Code::HookFailed, "on_start", "exit 3")),
            builds: Vec::new(),
            disk_free_bytes: 0,
        }),
    }
}

fn job(snapshot: &Snapshot, state: build::State) -> BuildJob {
    BuildJob {
        id: BuildJobId::generate(),
        team: snapshot.env.team,
        project: snapshot.env.project,
        environment: snapshot.env.id,
        run: RunId::generate(),
        target: "web".into(),
        platform: Platform::Amd64,
        spec: build::Job {
            sha: String::new(),
            source: None,
            context: ".".into(),
            dockerfile: "Dockerfile".into(),
            stage: String::new(),
            args: Default::default(),
            secrets: Vec::new(),
            size: Size::Small,
            image: "p/web:x".into(),
            timeout_secs: 60,
        },
        state,
        machine: None,
        image_digest: Some("sha256:1".into()),
        failure: None,
        attempt: 0,
        queued_at: now(),
        assigned_at: None,
        finished_at: None,
    }
}

#[test]
fn a_commit_goes_live_step_by_step_and_the_machine_does_not_wait_for_the_images() {
    let mut snapshot = snapshot();
    assert_eq!(plan(&snapshot, now()).op, Some(Op::BeginRun));
    snapshot.run = Some(Run { spec: None, ..run(&snapshot, run::State::Pending) });
    assert_eq!(plan(&snapshot, now()).op, Some(Op::ReadCommit));
    snapshot.run = Some(run(&snapshot, run::State::Pending));
    assert_eq!(plan(&snapshot, now()).op, Some(Op::EnsureMachine));
    snapshot.machines = vec![machine(&snapshot, machine::State::Intended)];
    assert_eq!(plan(&snapshot, now()).op, Some(Op::AskBuilds));
    snapshot.builds = vec![job(&snapshot, build::State::Building)];
    assert_eq!((plan(&snapshot, now()).op, plan(&snapshot, now()).state), (None, State::Building));
    snapshot.builds[0].state = build::State::Succeeded;
    assert_eq!((plan(&snapshot, now()).op, plan(&snapshot, now()).state), (None, State::Provisioning));
    snapshot.machines[0].state = machine::State::Enrolled;
    snapshot.agent = Some(agent(&snapshot, 0, 0, Phase::Idle));
    assert_eq!(plan(&snapshot, now()).op, Some(Op::Deploy));
    snapshot.agent = Some(agent(&snapshot, 3, 2, Phase::Running));
    assert_eq!((plan(&snapshot, now()).op, plan(&snapshot, now()).state), (None, State::Deploying));
    snapshot.agent = Some(agent(&snapshot, 3, 3, Phase::Running));
    assert_eq!(plan(&snapshot, now()).op, Some(Op::OpenAndProve));
    snapshot.run = Some(run(&snapshot, run::State::Succeeded));
    assert_eq!((plan(&snapshot, now()).op, plan(&snapshot, now()).state), (None, State::Live));
}

#[test]
fn every_failure_ends_the_run_with_its_own_reason() {
    let mut base = snapshot();
    base.run = Some(run(&base, run::State::Building));
    base.machines = vec![machine(&base, machine::State::Enrolled)];
    let failed = |snapshot: &Snapshot| match plan(snapshot, now()).op {
        Some(Op::Fail(failure)) => failure,
        other => panic!("{other:?}"),
    };
    let mut build = base.clone();
    build.builds = vec![job(&base, build::State::Failed)];
    assert_eq!((failed(&build).code, failed(&build).service.as_deref()), (Code::BuildFailed, Some("web")));
    let mut hook = base.clone();
    hook.builds = vec![job(&base, build::State::Succeeded)];
    hook.agent = Some(agent(&base, 3, 3, Phase::Failed));
    assert_eq!(failed(&hook).code, Code::HookFailed);
    let mut lost = base.clone();
    lost.machines.clear();
    let gone = Machine {
        failure: Some(failure(Code::MachineLost, "boot", "it died")),
        ..machine(&base, machine::State::Gone)
    };
    lost.newest = Some(gone.clone());
    assert_eq!(failed(&lost).code, Code::MachineLost);
    // A machine that was lost before this run began is no reason: a new one is made.
    lost.newest = Some(Machine { intended_at: now() - TimeDelta::hours(1), ..gone });
    assert_eq!(plan(&lost, now()).op, Some(Op::EnsureMachine));
    let late = |snapshot: &Snapshot| match plan(snapshot, now() + TimeDelta::hours(2)).op {
        Some(Op::Fail(failure)) => failure.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(late(&base), Code::TimedOut);
    base.run.as_mut().unwrap().spec = None;
    assert_eq!(late(&base), Code::GitHostFailed);
}

#[test]
fn what_was_opened_and_never_proved_is_not_taken_for_live() {
    let mut opened = snapshot();
    opened.machines = vec![machine(&opened, machine::State::Enrolled)];
    opened.routes = vec![entry(&opened, route::State::Ready)];
    assert!(!opened.was_live() && !opened.serves());
    // Nor is it when it was another machine that was live.
    opened.live_at = Some(now() - TimeDelta::minutes(1));
    assert!(!opened.was_live() && !opened.serves());
    opened.live_at = Some(now() + TimeDelta::minutes(1));
    assert!(opened.was_live() && opened.serves());
    opened.routes[0].state = route::State::Failed;
    assert!(opened.was_live() && !opened.serves(), "its data are kept for the next commit");
}

#[test]
fn another_processor_is_had_while_nothing_is_live_and_refused_afterwards() {
    let mut other = snapshot();
    let mut commit = spec();
    commit.spec.preview.arch = Arch::Arm64;
    other.run = Some(Run { spec: Some(commit), ..run(&other, run::State::Pending) });
    other.machines = vec![machine(&other, machine::State::Enrolled)];
    assert_eq!(plan(&other, now()).op, Some(Op::DropMachines));
    other.live_at = Some(now());
    let Some(Op::Fail(failure)) = plan(&other, now()).op else { panic!("it goes on") };
    assert_eq!((failure.code, failure.phase.as_str()), (Code::ConfigInvalid, "boot"));
    assert!(failure.message.contains("arm64 now") && failure.message.contains("is amd64"), "{}", failure.message);
}

#[test]
fn closing_at_any_moment_leaves_nothing_and_creates_nothing() {
    for run_state in run::State::ALL {
        for machine_state in machine::State::ALL.into_iter().filter(|state| *state != machine::State::Gone) {
            let mut snapshot = snapshot();
            snapshot.run = Some(run(&snapshot, run_state));
            snapshot.machines = vec![machine(&snapshot, machine_state)];
            snapshot.agent = Some(agent(&snapshot, 2, 2, Phase::Running));
            snapshot.env.desired = Presence::Absent;
            let mut done = Vec::new();
            for _ in 0..20 {
                let Some(op) = plan(&snapshot, now()).op else { break };
                match &op {
                    Op::CancelRuns => snapshot.env.state = State::Destroying,
                    Op::Stop => snapshot.agent = Some(agent(&snapshot, 3, 3, Phase::Stopped)),
                    Op::CloseRoutes => snapshot.routes.clear(),
                    Op::DropMachines => snapshot.machines.clear(),
                    Op::Finish => snapshot.env.state = State::Destroyed,
                    other => panic!("{other:?} while leaving"),
                }
                done.push(op);
            }
            assert_eq!(done.last(), Some(&Op::Finish), "{run_state:?} {machine_state:?}: {done:?}");
        }
    }
}

#[test]
fn an_agent_that_does_not_stop_is_not_waited_for_for_ever() {
    let mut snapshot = snapshot();
    snapshot.env.desired = Presence::Absent;
    snapshot.env.state = State::Destroying;
    snapshot.machines = vec![machine(&snapshot, machine::State::Enrolled)];
    snapshot.agent = Some(agent(&snapshot, 3, 2, Phase::Running));
    assert_eq!(plan(&snapshot, now()).op, None);
    let later = now() + TimeDelta::seconds(61);
    assert_eq!(plan(&snapshot, later).op, Some(Op::DropMachines));
}

#[test]
fn sleep_and_wake_follow_the_wish() {
    let mut snapshot = snapshot();
    snapshot.run = Some(run(&snapshot, run::State::Succeeded));
    snapshot.machines = vec![machine(&snapshot, machine::State::Enrolled)];
    snapshot.agent = Some(agent(&snapshot, 3, 3, Phase::Running));
    snapshot.env.power = Power::Asleep;
    assert_eq!(plan(&snapshot, now()).op, Some(Op::SetPower(Power::Asleep)));
    snapshot.machines[0].power = Power::Asleep;
    assert_eq!(plan(&snapshot, now()).state, State::Sleeping);
    snapshot.machines[0].state = machine::State::Hibernated;
    assert_eq!((plan(&snapshot, now()).op, plan(&snapshot, now()).state), (None, State::Asleep));
    snapshot.env.power = Power::Awake;
    assert_eq!(plan(&snapshot, now()).op, Some(Op::SetPower(Power::Awake)));
}

#[test]
fn a_lost_machine_is_replaced_when_the_preview_had_been_live_for_a_while() {
    let mut lost = snapshot();
    let succeeded = Run { live_at: Some(now()), ..run(&lost, run::State::Succeeded) };
    (lost.run, lost.live_at) = (Some(succeeded), Some(now()));
    let gone = Machine {
        desired: Presence::Absent,
        failure: Some(failure(Code::MachineLost, "run", "it is not there any more")),
        ..machine(&lost, machine::State::Gone)
    };
    lost.routes = vec![route::Entry { target: None, ..entry(&lost, route::State::Ready) }];
    lost.machines = vec![gone.clone()];
    lost.routes.push(entry(&lost, route::State::Ready));
    lost.newest = Some(gone);
    assert!(!lost.serves(), "what leads to a machine that is on its way out serves nothing");
    let mut lost_after = |minutes, power| {
        lost.env.power = power;
        lost.newest.as_mut().unwrap().drop_at = Some(now() + TimeDelta::minutes(minutes));
        let plan = plan(&lost, now() + TimeDelta::hours(1));
        (plan.op, plan.state)
    };
    assert_eq!(lost_after(1, Power::Awake), (None, State::Failed), "one that is lost at once is not tried for ever");
    assert_eq!(lost_after(10, Power::Awake), (Some(Op::Replace), State::Queued));
    assert_eq!(lost_after(10, Power::Asleep), (None, State::Asleep), "nobody misses it");
}

#[test]
fn a_silent_agent_is_given_up_after_a_while_in_which_others_were_heard() {
    let mut silent = snapshot();
    (silent.run, silent.live_at) = (Some(run(&silent, run::State::Succeeded)), Some(now()));
    silent.machines = vec![machine(&silent, machine::State::Enrolled)];
    silent.agent = Some(agent(&silent, 3, 3, Phase::Running));
    let mut after = |minutes, state, hears_others| {
        (silent.env.state, silent.hears_others) = (state, hears_others);
        let plan = plan(&silent, now() + TimeDelta::minutes(minutes));
        assert_eq!(plan.state, State::Unreachable);
        plan.op
    };
    assert_eq!(after(11, State::Unreachable, true), Some(Op::DropMachines));
    assert_eq!(after(9, State::Unreachable, true), None);
    assert_eq!(after(11, State::Unreachable, false), None, "it may be the hub that is away");
    assert_eq!(after(11, State::Waking, true), None, "it was asleep, and nobody expected to hear it");
    silent.machines[0].sleep_asked_at = Some(now());
    (silent.env.state, silent.hears_others) = (State::Unreachable, true);
    let plan = plan(&silent, now() + TimeDelta::minutes(11));
    assert_eq!((plan.op, plan.state), (None, State::Waking), "it was woken before it slept");
}
