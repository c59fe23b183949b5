//! What machines cost: hours are counted once, sleep is not counted, and currencies stay apart.

use chrono::{NaiveDate, TimeDelta};
use stagely_domain::cost::Money;
use stagely_domain::id::{CloudAccountId, EnvironmentId, MachineId, ProjectId};
use stagely_domain::machine::{Arch, Role, Size, State};
use stagely_domain::offering::{Offering, Price};
use stagely_store::machines::NewMachine;
use stagely_store::testing::TestDb;
use stagely_store::{Outcome, Scope, StoreError};

use crate::wait_for;

const ALL: Scope = Scope::system("look at costs in a test");

/// Every entry, by its begin: seconds that are paid for, money.
const ENTRIES: &str = "SELECT string_agg(extract(epoch FROM to_at - from_at)::bigint || ' s ' || micros || ' ' || currency, ', ' \
                       ORDER BY at) FROM cost_entries";

struct World {
    db: TestDb,
    account: CloudAccountId,
    project: ProjectId,
    environment: EnvironmentId,
}

impl World {
    /// An account of this kind, a project and an environment.
    async fn new(kind: &str) -> Self {
        let db = TestDb::new().await;
        let team = db.team("acme").await;
        let account = db.qemu_account(team).await;
        db.execute(&format!("UPDATE cloud_providers SET kind = '{kind}'")).await;
        let project = db.project(team, "acme/shop", Some(account)).await;
        let environment = EnvironmentId::generate();
        db.execute(&format!(
            "INSERT INTO environments (id, team_id, project_id, pr_number, preview_hash, desired, desired_sha, state, \
               ttl_secs, expires_at) \
             VALUES ('{}', '{}', '{}', 7, 'x7k2', 'present', repeat('0', 40), 'live', 3600, now())",
            environment.uuid(),
            team.uuid(),
            project.uuid(),
        ))
        .await;
        Self { db, account, project, environment }
    }

    /// A machine that its provider has.
    async fn placed(&self, environment: Option<EnvironmentId>, price: Option<(u64, &str)>) -> MachineId {
        let id = MachineId::generate();
        let price = price.map(|(micros_per_hour, currency)| Price { micros_per_hour, currency: currency.to_owned() });
        let (name, location) = ("cx23".to_owned(), "nbg1".to_owned());
        let offering =
            Offering { name, location, arch: Arch::Amd64, vcpus: 2, memory_mib: 4096, price, available: true };
        let team = self.db.store().get_project(&ALL, self.project).await.unwrap().team;
        let new = NewMachine {
            id,
            team,
            project: Some(self.project),
            environment,
            account: self.account,
            role: if environment.is_some() { Role::Preview } else { Role::Builder },
            size: Size::Medium,
            arch: Arch::Amd64,
            locations: Vec::new(),
            lifetime: TimeDelta::days(1),
        };
        let tx = self.db.store().begin().await.unwrap();
        let _ = tx.insert_machine(&new).await.unwrap();
        let _ = tx.machine_creating(id, TimeDelta::seconds(60), Some(&offering), None).await.unwrap();
        let _ = tx.machine_placed(id, "4711", None).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn becomes(&self, id: MachineId, from: State, to: State) {
        let tx = self.db.store().begin().await.unwrap();
        assert_eq!(tx.set_machine_state(id, from, to).await.unwrap(), Outcome::Written);
        tx.commit().await.unwrap();
    }

    /// The pass over everything that is billed.
    async fn note(&self) -> Result<(), StoreError> {
        for id in self.db.store().list_billed_machines(self.account).await? {
            let tx = self.db.store().begin().await?;
            tx.note_cost(id).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// As if everything had happened so much earlier.
    async fn ago(&self, span: &str) {
        self.db.execute(&format!("UPDATE machines SET billed_from = billed_from - interval '{span}'")).await;
        self.db
            .execute(&format!(
                "UPDATE cost_entries SET at = at - interval '{span}', from_at = from_at - interval '{span}', \
                 to_at = to_at - interval '{span}'"
            ))
            .await;
    }

    async fn entries(&self) -> String {
        self.db.text(ENTRIES).await
    }

    async fn cost(&self) -> Vec<Money> {
        let mut costs = self.db.store().list_environment_costs(&ALL, &[self.environment]).await.unwrap();
        costs.remove(&self.environment).unwrap_or_default()
    }
}

fn euros(micros: u64) -> Money {
    Money { micros, currency: "EUR".to_owned() }
}

#[tokio::test]
async fn an_hour_is_counted_once_however_often_it_is_noted() {
    let world = World::new("hetzner").await;
    let id = world.placed(Some(world.environment), Some((6_000, "EUR"))).await;
    for _ in 0..3 {
        world.note().await.unwrap();
    }
    assert_eq!(world.entries().await, "3600 s 6000 EUR");
    world.ago("90 minutes").await;
    for _ in 0..3 {
        world.note().await.unwrap();
    }
    assert_eq!(world.entries().await, "3600 s 6000 EUR, 3600 s 6000 EUR");
    // The end comes within the second hour, and twice.
    world.becomes(id, State::Booting, State::Deleting).await;
    world.becomes(id, State::Deleting, State::Gone).await;
    let tx = world.db.store().begin().await.unwrap();
    assert_eq!(tx.set_machine_state(id, State::Deleting, State::Gone).await.unwrap(), Outcome::Stale);
    tx.note_cost(id).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.cost().await, [euros(12_000)]);
    world.db.drop_database().await;
}

#[tokio::test]
async fn hours_that_nobody_noted_are_counted_at_the_end() {
    let world = World::new("hetzner").await;
    let id = world.placed(Some(world.environment), Some((6_000, "EUR"))).await;
    world.note().await.unwrap();
    world.ago("5 hours 1 minute").await;
    world.becomes(id, State::Booting, State::Deleting).await;
    assert_eq!(world.cost().await, [euros(6_000)]);
    world.becomes(id, State::Deleting, State::Gone).await;
    assert_eq!(world.cost().await, [euros(36_000)]);
    world.ago("5 hours").await;
    world.note().await.unwrap();
    assert_eq!(world.cost().await, [euros(36_000)]);
    world.db.drop_database().await;
}

#[tokio::test]
async fn an_end_that_is_not_committed_leaves_the_count_as_it_was() {
    let world = World::new("hetzner").await;
    let id = world.placed(Some(world.environment), Some((6_000, "EUR"))).await;
    world.becomes(id, State::Booting, State::Deleting).await;
    let tx = world.db.store().begin().await.unwrap();
    let _ = tx.set_machine_state(id, State::Deleting, State::Gone).await.unwrap();
    drop(tx);
    assert_eq!(world.cost().await, []);
    world.becomes(id, State::Deleting, State::Gone).await;
    assert_eq!(world.cost().await, [euros(6_000)]);
    world.db.drop_database().await;
}

#[tokio::test]
async fn a_note_that_meets_the_end_counts_nothing_after_it() {
    let world = World::new("hetzner").await;
    let id = world.placed(Some(world.environment), Some((6_000, "EUR"))).await;
    world.becomes(id, State::Booting, State::Deleting).await;
    let end = world.db.store().begin().await.unwrap();
    assert_eq!(end.set_machine_state(id, State::Deleting, State::Gone).await.unwrap(), Outcome::Written);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let (noted, ()) = tokio::join!(world.note(), async {
        wait_for("the note to meet the end", || async { world.db.text(waits).await == "1" }).await;
        // A mark by which one sees whether the hour is written once more.
        let mark = "UPDATE cost_entries SET to_at = to_at - interval '2 hours'";
        assert_eq!(end.execute(mark).await.unwrap(), 1);
        end.commit().await.unwrap();
    });
    noted.unwrap();
    assert_eq!(world.entries().await, "-3600 s 6000 EUR");
    world.db.drop_database().await;
}

#[tokio::test]
async fn a_second_that_is_paid_for_is_noted_as_it_goes_by() {
    let world = World::new("aws").await;
    let id = world.placed(Some(world.environment), Some((3_600_000, "USD"))).await;
    world.note().await.unwrap();
    assert_eq!(world.entries().await, "60 s 60000 USD");
    // Half seconds keep the test from depending on how fast it runs.
    world.ago("119.5 seconds").await;
    world.note().await.unwrap();
    let micros: u64 = world.cost().await[0].micros;
    assert!((120_000..130_000).contains(&micros), "{micros}");
    world.ago("1 hour").await;
    world.becomes(id, State::Booting, State::Deleting).await;
    world.becomes(id, State::Deleting, State::Gone).await;
    let micros: u64 = world.cost().await[0].micros;
    assert!((3_720_000..3_740_000).contains(&micros), "{micros}");
    assert!(world.entries().await.starts_with("3600 s 3600000 USD, "), "{}", world.entries().await);
    world.db.drop_database().await;
}

#[tokio::test]
async fn sleep_costs_nothing_and_each_waking_is_billed_by_itself() {
    let world = World::new("hetzner").await;
    let id = world.placed(Some(world.environment), Some((6_000, "EUR"))).await;
    world.becomes(id, State::Booting, State::Enrolled).await;
    world.becomes(id, State::Enrolled, State::Hibernated).await;
    assert_eq!(world.cost().await, [euros(6_000)]);
    world.ago("3 days").await;
    world.note().await.unwrap();
    assert_eq!(world.cost().await, [euros(6_000)]);
    // What the provider answers to the waking comes first.
    let tx = world.db.store().begin().await.unwrap();
    let _ = tx.machine_placed(id, "4712", None).await.unwrap();
    let _ = tx.set_machine_state(id, State::Hibernated, State::Enrolled).await.unwrap();
    tx.commit().await.unwrap();
    world.note().await.unwrap();
    assert_eq!(world.cost().await, [euros(12_000)]);
    // Asleep again in the same hour, and removed in its sleep.
    world.becomes(id, State::Enrolled, State::Hibernated).await;
    world.becomes(id, State::Hibernated, State::Deleting).await;
    world.ago("3 days").await;
    world.becomes(id, State::Deleting, State::Gone).await;
    assert_eq!(world.cost().await, [euros(12_000)]);
    world.db.drop_database().await;
}

#[tokio::test]
async fn a_machine_that_landed_unseen_costs_and_one_that_never_did_does_not() {
    let world = World::new("hetzner").await;
    let (landed, never) = (
        world.placed(Some(world.environment), Some((6_000, "EUR"))).await,
        world.placed(Some(world.environment), Some((6_000, "EUR"))).await,
    );
    // The provider's answers were lost, and then both were dropped.
    world.db.execute("UPDATE machines SET placed_at = NULL, billed_from = NULL, state = 'deleting'").await;
    let tx = world.db.store().begin().await.unwrap();
    assert_eq!(tx.machine_shown(landed).await.unwrap(), Outcome::Written);
    assert_eq!(tx.machine_shown(landed).await.unwrap(), Outcome::Stale);
    tx.commit().await.unwrap();
    for id in [landed, never] {
        world.becomes(id, State::Deleting, State::Gone).await;
    }
    let of = format!("SELECT string_agg(machine_id::text, ' ') = '{}' FROM cost_entries", landed.uuid());
    assert_eq!(world.db.text(&of).await, "true");
    world.db.drop_database().await;
}

#[tokio::test]
async fn what_has_no_price_has_no_cost() {
    let world = World::new("qemu").await;
    let id = world.placed(Some(world.environment), None).await;
    world.ago("3 hours").await;
    world.note().await.unwrap();
    world.becomes(id, State::Booting, State::Deleting).await;
    world.becomes(id, State::Deleting, State::Gone).await;
    assert_eq!((world.entries().await, world.cost().await), (String::new(), Vec::new()));
    world.db.drop_database().await;
}

#[tokio::test]
async fn currencies_are_never_added_up() {
    let world = World::new("hetzner").await;
    world.placed(Some(world.environment), Some((6_000, "EUR"))).await;
    world.placed(Some(world.environment), Some((5_000, "EUR"))).await;
    world.placed(Some(world.environment), Some((7_000, "USD"))).await;
    world.placed(None, Some((100, "USD"))).await;
    world.note().await.unwrap();
    let dollars = |micros| Money { micros, currency: "USD".to_owned() };
    assert_eq!(world.cost().await, [euros(11_000), dollars(7_000)]);
    // A builder is the project's, not one preview's.
    let today: NaiveDate = world.db.text("SELECT (now() AT TIME ZONE 'UTC')::date").await.parse().unwrap();
    let days = world.db.store().list_project_costs(&ALL, world.project, today, today).await.unwrap();
    assert!(days.iter().all(|line| line.day == today), "{days:?}");
    assert_eq!(days.into_iter().map(|line| line.cost).collect::<Vec<_>>(), [euros(11_000), dollars(7_100)]);
    world.db.drop_database().await;
}

#[tokio::test]
async fn an_hour_belongs_to_the_day_and_the_month_in_which_it_begins() {
    let world = World::new("hetzner").await;
    world.placed(Some(world.environment), Some((6_000, "EUR"))).await;
    // From half past ten in the evening of the last day of a month; half past midnight is over.
    let begin = "(date_trunc('month', now() AT TIME ZONE 'UTC') - interval '90 minutes') AT TIME ZONE 'UTC'";
    world.db.execute(&format!("UPDATE machines SET billed_from = {begin}")).await;
    world.note().await.unwrap();
    let first: NaiveDate =
        world.db.text("SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date").await.parse().unwrap();
    let last = first.pred_opt().unwrap();
    let of_day = async |day| world.db.store().list_project_costs(&ALL, world.project, day, day).await.unwrap();
    // 22:30 and 23:30.
    assert_eq!(of_day(last).await.into_iter().map(|line| line.cost).collect::<Vec<_>>(), [euros(12_000)]);
    let month = first.format("%Y%m");
    let strays = format!(
        "SELECT count(*) FROM cost_entries WHERE (at >= '{first}T00:00:00Z') <> (tableoid::regclass::text = 'cost_entries_{month}')"
    );
    assert_eq!(world.db.text(&strays).await, "0");
    world.db.drop_database().await;
}
