//! The same story, with something going wrong at every call to a peer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use stagely_builder_scheduler::Config;
use stagely_domain::build::State;
use stagely_domain::id::{BuildJobId, MachineId};

use crate::gate::{Gate, Harm};
use crate::stack::{Stack, fact, wait_for};

/// More calls than the story has.
const MOST: usize = 60;

const TURN: Duration = Duration::from_millis(20);

/// What is put off comes forward: nobody waits for back-offs here. What is due only when woken stays so.
const HURRY: &str = "WITH due AS (UPDATE work SET run_after = least(run_after, now()), not_before = '-infinity' \
    WHERE run_after < 'infinity' AND (run_after > now() OR not_before > now()) AND lease_until <= now() RETURNING kind) \
    SELECT pg_notify('work_' || kind, '') FROM due GROUP BY kind";

/// Whether something is not at rest, or was given up.
const UNREST: &str = "SELECT (SELECT count(*) FROM machines WHERE desired = 'present') + (SELECT count(*) FROM work \
    WHERE kind = 'fleet' AND (parked OR run_after < 'infinity' OR lease_until > now()))";

/// The agents of all builders: each does what its newest wish says, for as long as its machine is there.
#[derive(Default)]
struct Agents(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    /// What each machine works on, or has built and is still wished to.
    builds: HashMap<MachineId, BTreeMap<BuildJobId, State>>,
    begun: Vec<(MachineId, BuildJobId)>,
    /// Builds that come to an end; the others go on until they are told to stop.
    end: BTreeSet<BuildJobId>,
    lost: BTreeSet<MachineId>,
}

impl Agents {
    async fn play(&self, stack: &Stack) {
        for turn in 0_u32.. {
            let (wishes, released) = stack.world(|world| (world.wishes.clone(), world.released.clone()));
            for (machine, (_, wish)) in wishes {
                let wanted = wish.builds.iter().map(|build| build.job_id.parse().unwrap()).collect();
                if let Some(builds) = self.turn(machine, released.contains(&machine), &wanted) {
                    stack.report(machine, builds.into_iter().map(|(job, state)| fact(job, state)).collect()).await;
                }
            }
            if turn.is_multiple_of(5) {
                stack.db.execute(HURRY).await;
            }
            tokio::time::sleep(TURN).await;
        }
    }

    /// What a machine has to say, if that is new.
    fn turn(
        &self,
        machine: MachineId,
        is_released: bool,
        wanted: &BTreeSet<BuildJobId>,
    ) -> Option<BTreeMap<BuildJobId, State>> {
        let mut inside = self.inside();
        let before = inside.builds.remove(&machine).unwrap_or_default();
        if is_released || inside.lost.contains(&machine) {
            return None;
        }
        let mut builds = before.clone();
        builds.retain(|job, _| wanted.contains(job));
        for job in wanted {
            if !builds.contains_key(job) {
                inside.begun.push((machine, *job));
                builds.insert(*job, State::Building);
            } else if inside.end.contains(job) {
                builds.insert(*job, State::Succeeded);
            }
        }
        inside.builds.insert(machine, builds.clone());
        (builds != before).then_some(builds)
    }

    /// Whether some machine works on it.
    fn works_on(&self, job: BuildJobId) -> bool {
        self.inside().builds.values().any(|builds| builds.get(&job) == Some(&State::Building))
    }

    fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two builds are begun, their builder is lost, another one ends the first, the second is not wanted any more, and then
/// nothing is.
async fn tell(stack: &Stack, agents: &Agents) {
    let (front, back) = (stack.ask("frontend").await, stack.ask("backend").await);
    let both = || async { agents.works_on(front) && agents.works_on(back) };
    wait_for("both to be built", both).await;

    let lost = stack.machine_of(front).await;
    agents.inside().lost.insert(lost);
    agents.inside().builds.remove(&lost);
    let gone = "UPDATE machines SET state = 'gone', gone_at = now(), desired = 'absent' WHERE id";
    stack.db.execute(&format!("{gone} = '{}'", lost.uuid())).await;
    stack.wake().await;
    wait_for("both to be built elsewhere", both).await;

    agents.inside().end.insert(front);
    let built = stack.state(front, State::Succeeded).await;
    assert!(built.image_digest.is_some() && built.attempt == 1 && built.machine != Some(lost));

    stack.db.execute("UPDATE workflow_runs SET state = 'superseded', finished_at = now()").await;
    stack.wake().await;
    stack.state(back, State::Cancelled).await;
    wait_for("an end of what nobody wants", || async { !agents.works_on(back) }).await;

    stack.db.execute("UPDATE environments SET desired = 'absent'").await;
    stack.wake().await;
    wait_for("rest", || async { stack.db.text(UNREST).await == "0" }).await;
    assert_eq!(stack.job(front).await.state, State::Succeeded);
    let begun = agents.inside().begun.clone();
    assert_eq!(begun.iter().collect::<BTreeSet<_>>().len(), begun.len(), "begun anew where it was at work: {begun:?}");
    assert!(begun.len() <= 4, "begun more often than a builder was lost: {begun:?}");
}

/// Tells the story with one call harmed; which one, or nothing if there are not so many.
async fn harm_one(harm: Harm, number: usize) -> Option<&'static str> {
    let stack = Stack::start_behind(Gate::harming(number, harm), Config::default()).await;
    let agents = Agents::default();
    tokio::select! {
        () = tell(&stack, &agents) => {}
        () = agents.play(&stack) => {}
    }
    let (calls, acquired) = (stack.gate.calls(), stack.world(|world| world.acquired.clone()));
    // What landed late is another builder, which goes with the rest.
    let most = if harm == Harm::LandsLate { 3 } else { 2 };
    assert!((2..=most).contains(&acquired.len()), "{harm:?} at {number} of {calls:?}: {acquired:?}");
    stack.end().await;
    calls.get(number).copied()
}

/// Tells the story once for each call, with that call harmed, until there is no such call any more; some at the same time.
#[expect(clippy::print_stdout, reason = "how many calls were tried is what the test is worth")]
async fn harm_each_call(harm: Harm) {
    let mut tried = Vec::new();
    for first in (0..MOST).step_by(3) {
        let (one, two, three) =
            tokio::join!(harm_one(harm, first), harm_one(harm, first + 1), harm_one(harm, first + 2));
        let harmed = [one, two, three];
        tried.extend(harmed.into_iter().flatten());
        if harmed.contains(&None) {
            println!("{harm:?}: {} calls, leaked 0, lost 0, endless 0", tried.len());
            let kinds: BTreeSet<_> = tried.iter().collect();
            assert!(kinds.len() == 4 && tried.len() >= 8, "too few to prove anything: {tried:?}");
            return;
        }
    }
    panic!("it never comes to rest");
}

#[tokio::test]
async fn every_call_may_fail_before_its_effect() {
    harm_each_call(Harm::FailsBefore).await;
}

#[tokio::test]
async fn every_call_may_lose_its_answer() {
    harm_each_call(Harm::FailsAfter).await;
}

#[tokio::test]
async fn the_process_may_be_killed_before_every_call() {
    harm_each_call(Harm::DiesBefore).await;
}

#[tokio::test]
async fn the_process_may_be_killed_after_every_call() {
    harm_each_call(Harm::DiesAfter).await;
}

#[tokio::test]
async fn every_call_of_a_killed_process_may_take_effect_late() {
    harm_each_call(Harm::LandsLate).await;
}
