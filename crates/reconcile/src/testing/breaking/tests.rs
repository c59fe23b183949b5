use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::yield_now;
use uuid::Uuid;

use super::{Break, break_every_await};
use crate::testing::MemoryWork;
use crate::{Claim, ErrorClass, Next, Reconciler, Step, StepError, WorkStore};

const KIND: &str = "thing";
const LEASE: Duration = Duration::from_secs(15);

/// A database of one row and a cloud that charges for whatever is in it.
#[derive(Default)]
struct World {
    work: MemoryWork,
    row: Mutex<Row>,
    cloud: Mutex<Vec<Uuid>>,
}

#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Row {
    key: Uuid,
    intended: bool,
    made: bool,
}

/// The order in which a machine is made.
#[derive(Clone, Copy)]
enum Order {
    /// Intent first, a look before the create, the machine known by our id.
    Ensure,
    /// Whatever is not recorded as made is created: forgets what it did when it is stopped in between.
    Blind,
}

struct Maker<'w>(&'w World, Order);

impl Maker<'_> {
    async fn write(&self, claim: &Claim, change: impl FnOnce(&mut Row)) -> Result<(), StepError> {
        yield_now().await;
        if !self.0.work.holds(&claim.fence) {
            return Err(StepError::new(ErrorClass::Fenced, "write", "fenced out"));
        }
        change(&mut self.0.row.lock().unwrap());
        yield_now().await;
        Ok(())
    }

    async fn create(&self, id: Uuid) {
        yield_now().await;
        self.0.cloud.lock().unwrap().push(id);
        yield_now().await;
    }

    async fn exists(&self, id: Uuid) -> bool {
        yield_now().await;
        self.0.cloud.lock().unwrap().contains(&id)
    }

    async fn step(&self, claim: &Claim) -> Result<Step, StepError> {
        let row = *self.0.row.lock().unwrap();
        if row.made {
            return Ok(Step::Done);
        }
        match self.1 {
            Order::Ensure => {
                self.write(claim, |row| row.intended = true).await?;
                if !self.exists(row.key).await {
                    self.create(row.key).await;
                }
            }
            Order::Blind => self.create(row.key).await,
        }
        self.write(claim, |row| row.made = true).await?;
        Ok(Step::Done)
    }
}

async fn arrange() -> (World, Claim) {
    let (world, key) = (World::default(), Uuid::now_v7());
    world.row.lock().unwrap().key = key;
    world.work.wake(KIND, key);
    let claim = world.work.claim(KIND, "first", 1, LEASE).await.unwrap()[0];
    (world, claim)
}

/// Another process takes over and goes on until nothing is due.
async fn come_to_rest(world: &World, order: Order) {
    tokio::time::sleep(LEASE).await;
    while let Some(claim) = world.work.claim(KIND, "second", 1, LEASE).await.unwrap().first() {
        Maker(world, order).step(claim).await.unwrap();
        world.work.finish(&claim.fence, &Next::Done { again_in: None }).await.unwrap();
    }
    assert!(world.work.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn a_step_that_ensures_makes_one_machine_wherever_it_is_stopped() {
    let awaits = break_every_await(
        arrange,
        async |(world, claim)| Maker(world, Order::Ensure).step(claim).await.is_ok(),
        async |(world, claim), broken| {
            come_to_rest(world, Order::Ensure).await;
            let row = *world.row.lock().unwrap();
            assert!(row.made && row.intended, "{broken:?}: {row:?}");
            assert_eq!(*world.cloud.lock().unwrap(), [row.key], "{broken:?}");
            // What was stopped and comes back to life is refused.
            let zombie = Maker(world, Order::Ensure).write(claim, |row| row.made = false).await.unwrap_err();
            assert_eq!(zombie.class, ErrorClass::Fenced);
        },
    )
    .await;
    assert_eq!(awaits, 7, "two writes of two awaits, a look of one, a create of two");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_does_not_look_is_caught() {
    let leaks = Mutex::new(Vec::new());
    break_every_await(
        arrange,
        async |(world, claim)| Maker(world, Order::Blind).step(claim).await.is_ok(),
        async |(world, _), broken| {
            come_to_rest(world, Order::Blind).await;
            if world.cloud.lock().unwrap().len() != 1 {
                leaks.lock().unwrap().push(broken);
            }
        },
    )
    .await;
    assert_eq!(*leaks.lock().unwrap(), [Break::At(2), Break::At(3)], "stopped between the effect and its record");
}

struct Endless;

#[async_trait]
impl Reconciler for Endless {
    const KIND: &'static str = KIND;

    async fn reconcile(&self, _: &Claim) -> Result<Step, StepError> {
        loop {
            yield_now().await;
        }
    }
}

#[tokio::test]
#[should_panic(expected = "not done")]
async fn a_step_that_never_ends_is_told() {
    break_every_await(arrange, async |(_, claim)| Endless.reconcile(claim).await.is_ok(), async |_, _| {}).await;
}
