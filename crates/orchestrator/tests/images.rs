//! Golden images: baked, booted, replaced, removed, with something going wrong wherever something can.

mod accounts;
mod held;
mod lacking;

use std::sync::atomic::{AtomicUsize, Ordering};

use stagely_cloud::{Cloud, Residue, ResidueKind};
use stagely_domain::id::{CloudAccountId, ImageId, MachineId, TeamId};
use stagely_domain::machine::Arch;
use stagely_store::Scope;
use stagely_store::images::{Image, NewImage};

use crate::costs;
use crate::faults::in_lanes;
use crate::gate::{Harm, Point};
use crate::stack::Stack;

/// Machines that are baked now.
const BAKES: &str = "SELECT count(*) FROM machines WHERE role = 'bake' AND gone_at IS NULL";

impl Stack {
    /// What a member asks for.
    async fn bake(&self) -> ImageId {
        let text = |column: &'static str| async move {
            self.world.db.text(&format!("SELECT {column} FROM cloud_providers")).await.parse().unwrap()
        };
        let new = NewImage {
            id: ImageId::generate(),
            team: TeamId::from_uuid(text("team_id").await),
            account: CloudAccountId::from_uuid(text("id").await),
            arch: Arch::Amd64,
            base_images: vec!["debian:13-slim".to_owned()],
        };
        self.other().await.bake_image(&new).await.unwrap();
        new.id
    }

    /// What a member asks for who has enough of it.
    async fn drop_image(&self, id: ImageId) {
        self.other().await.drop_image(self.image(id).await.team, id).await.unwrap();
    }

    async fn image(&self, id: ImageId) -> Image {
        self.world.db.store().get_image(&Scope::system("look at an image in a test"), id).await.unwrap()
    }

    async fn image_state(&self, id: ImageId) -> String {
        self.world.db.text(&format!("SELECT state FROM images WHERE id = '{}'", id.uuid())).await
    }

    /// Machines that bake are done with it, all of them.
    async fn finish_bakes(&self) {
        let store = self.world.db.store();
        for machine in self.cloud.inner.machines() {
            if store.find_bake(machine).await.unwrap().is_some() {
                self.cloud.inner.power_off(machine);
            }
        }
    }

    /// Ready, and the machine that it was made of is gone.
    async fn baked(&self, id: ImageId) -> String {
        self.wait("a ready image", async || {
            self.finish_bakes().await;
            self.image_state(id).await == "ready" && self.world.db.text(BAKES).await == "0"
        })
        .await;
        self.image(id).await.reference.unwrap()
    }

    /// The provider has nothing of it, and its row says so.
    async fn image_gone(&self, id: ImageId) {
        self.wait("an image to be gone", async || {
            self.finish_bakes().await;
            self.image_state(id).await == "gone"
        })
        .await;
        assert!(self.residue_of(id).is_empty());
        assert!(self.image(id).await.deleted_at.is_some());
    }

    fn residue_of(&self, id: ImageId) -> Vec<String> {
        let residue = self.cloud.inner.residue();
        residue.into_iter().filter(|one| one.image == Some(id)).map(|one| one.id).collect()
    }

    /// A sweep by a process that remembers none: nothing is there that no row wants.
    async fn nothing_is_left_over(&self) {
        let found = self.sweep().await;
        assert!(found.complete && (found.orphans, found.removed) == (0, 0), "{found:?}");
        assert_eq!(self.world.db.text("SELECT count(*) FROM work WHERE parked").await, "0");
    }

    /// A live preview's machine, and the image by which it was asked for.
    async fn boots(&self) -> (MachineId, Option<String>) {
        self.open_until_live().await;
        let machine = self.only_machine();
        (machine, self.cloud.inner.booted(machine).unwrap())
    }
}

/// Baked, there, removed, gone; with one machine and one image, whatever happens.
async fn tell(stack: &Stack) {
    let id = stack.bake().await;
    let reference = stack.baked(id).await;
    assert_eq!(stack.residue_of(id), [reference]);
    assert_eq!((stack.cloud.inner.machines().len(), stack.cloud.ever(), stack.cloud.peak()), (0, 1, 1));
    stack.drop_image(id).await;
    stack.image_gone(id).await;
    assert_eq!((stack.cloud.inner.machines().len(), stack.cloud.ever()), (0, 1));
}

#[tokio::test]
async fn the_next_preview_boots_a_baked_image_and_the_bake_costs_the_team_and_no_project() {
    let mut stack = Stack::start().await;
    stack.cloud.inner.sell(vec![costs::dear()]);
    let id = stack.bake().await;
    let reference = stack.baked(id).await;
    let image = stack.image(id).await;
    assert_eq!(
        (image.base_images.as_slice(), image.agent_sha256.map_or(0, |sha| sha.len())),
        (&["debian:13-slim".to_owned()][..], 64)
    );
    let agents = "SELECT count(*) FROM agent_connections";
    assert_eq!(stack.world.db.text(agents).await, "0", "no agent may enrol from a machine that bakes");
    let cost = stack.world.db.store().list_image_costs(&Scope::system("costs"), &[id]).await.unwrap();
    assert!(cost[&id][0].micros > 0 && cost[&id][0].currency == "EUR", "{cost:?}");
    assert_eq!(stack.world.db.text("SELECT count(*) FROM cost_entries WHERE project_id IS NOT NULL").await, "0");
    let (machine, booted) = stack.boots().await;
    assert_eq!(booted.as_ref(), Some(&reference));
    let named = format!("SELECT image_id || ' ' || image FROM machines WHERE id = '{}'", machine.uuid());
    assert_eq!(stack.world.db.text(&named).await, format!("{} {reference}", id.uuid()));
    // What runs needs no image any more.
    stack.drop_image(id).await;
    stack.image_gone(id).await;
    assert!(stack.is_served().await);
    stack.close_until_gone().await;
    stack.next().await;
    assert_eq!(stack.boots().await.1, None);
    stack.close_and_end().await;
}

#[tokio::test]
async fn an_image_of_another_place_is_not_booted() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![costs::dear()]);
    let id = stack.bake().await;
    stack.baked(id).await;
    stack.world.db.execute("UPDATE images SET locations = '[\"fsn1\"]'").await;
    assert_eq!(stack.boots().await.1, None);
    stack.close_and_end().await;
}

#[expect(clippy::print_stdout, reason = "how many points were tried is what the test is worth")]
async fn harm_each_call(harm: Harm, is_worth_it: impl Fn(Point) -> bool) {
    let mut stack = Stack::start().await;
    tell(&stack).await;
    let mut points = Point::of(&stack.gate.calls());
    points.retain(|point| is_worth_it(*point) && !point.call.starts_with("git "));
    stack.next().await;
    let reached = AtomicUsize::new(0);
    in_lanes(stack, points, async |stack, point| {
        stack.gate.arm(Some((point, harm)));
        tell(stack).await;
        reached.fetch_add(usize::from(stack.gate.was_reached()), Ordering::Relaxed);
        stack.gate.arm(None);
        stack.nothing_is_left_over().await;
    })
    .await;
    let reached = reached.into_inner();
    println!("{harm:?}: {reached} points of a bake, leaked 0, killed 0, lost 0");
    assert!(reached >= 4, "{reached} points are too few to prove anything");
}

#[tokio::test]
async fn every_call_of_a_bake_may_fail_before_its_effect() {
    harm_each_call(Harm::FailsBefore, |_| true).await;
}

#[tokio::test]
async fn every_call_of_a_bake_may_lose_its_answer() {
    harm_each_call(Harm::FailsAfter, Point::has_effect).await;
}

#[tokio::test]
async fn the_process_may_be_killed_before_every_call_of_a_bake() {
    harm_each_call(Harm::DiesBefore, |_| true).await;
}

#[tokio::test]
async fn the_process_may_be_killed_after_every_call_of_a_bake() {
    harm_each_call(Harm::DiesAfter, Point::has_effect).await;
}

#[tokio::test]
async fn an_image_may_be_removed_during_every_call_of_its_bake() {
    let mut stack = Stack::start().await;
    let id = stack.bake().await;
    stack.baked(id).await;
    let mut points = Point::of(&stack.gate.calls());
    points.retain(|point| !point.call.starts_with("git "));
    stack.drop_image(id).await;
    stack.image_gone(id).await;
    stack.next().await;
    let reached = AtomicUsize::new(0);
    in_lanes(stack, points, async |stack, point| {
        stack.gate.arm(Some((point, Harm::Waits)));
        let id = stack.bake().await;
        let was_reached = tokio::select! {
            () = stack.gate.waits() => true,
            _ = stack.baked(id) => false,
        };
        reached.fetch_add(usize::from(was_reached), Ordering::Relaxed);
        stack.drop_image(id).await;
        stack.gate.go_on();
        stack.image_gone(id).await;
        stack.wait("no machine", async || stack.cloud.inner.machines().is_empty()).await;
        stack.nothing_is_left_over().await;
        assert!(stack.cloud.ever() <= 1);
    })
    .await;
    assert!(reached.into_inner() >= 4);
}

#[tokio::test]
async fn a_bake_that_never_stops_fails_with_the_end_of_its_console_and_leaves_nothing() {
    let stack = Stack::start().await;
    *stack.cloud.console.lock().unwrap() = Some("E: Unable to fetch some archives".to_owned());
    let id = stack.bake().await;
    stack.wait("a machine", async || stack.image(id).await.machine.is_some()).await;
    let late = "UPDATE machines SET placed_at = placed_at - interval '26 minutes' WHERE placed_at > now() - interval '9 minutes'";
    stack
        .wait("a failure", async || {
            stack.world.db.execute(late).await;
            stack.image_state(id).await == "failed"
        })
        .await;
    let failure = stack.image(id).await.failure.unwrap();
    assert!(failure.log_tail.contains("Unable to fetch") && failure.message.contains("25 minutes"), "{failure:?}");
    stack.wait("nothing of it", async || stack.image(id).await.deleted_at.is_some()).await;
    assert_eq!((stack.cloud.inner.machines().len(), stack.cloud.inner.residue().len()), (0, 0));
    stack.nothing_is_left_over().await;
    // Its row says why until somebody has read it.
    assert_eq!(stack.image_state(id).await, "failed");
    stack.drop_image(id).await;
    stack.image_gone(id).await;
    stack.end().await;
}

#[tokio::test]
async fn a_bake_whose_machine_is_removed_by_hand_fails_and_one_that_there_is_no_room_for_says_so() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![costs::dear()]);
    stack.cloud.inner.fill(&["dear"]);
    let id = stack.bake().await;
    stack.wait("a failure", async || stack.image_state(id).await == "failed").await;
    let failure = stack.image(id).await.failure.unwrap();
    assert!(failure.message.contains("tried dear in nbg1"), "{failure:?}");
    stack.cloud.inner.fill(&[]);
    let id = stack.bake().await;
    stack.wait("a machine", async || stack.cloud.inner.machines().len() == 1).await;
    let machine = stack.only_machine();
    let vm = stack.cloud.inner.find(machine).await.unwrap().remove(0);
    stack.cloud.inner.delete(&vm.id).await.unwrap();
    let placed = "UPDATE machines SET placed_at = now() - interval '6 minutes' WHERE placed_at IS NOT NULL";
    let look = "UPDATE work SET run_after = now() WHERE kind = 'machine'";
    stack
        .wait("the loss to be noticed", async || {
            stack.world.db.execute(placed).await;
            stack.world.db.execute(look).await;
            stack.image_state(id).await == "failed"
        })
        .await;
    assert!(stack.image(id).await.failure.unwrap().message.contains("not there any more"));
    stack.end().await;
}

#[tokio::test]
async fn an_image_that_was_removed_by_hand_is_given_up_and_the_preview_boots_without() {
    let stack = Stack::start().await;
    let id = stack.bake().await;
    stack.baked(id).await;
    stack.cloud.inner.leave_behind(Vec::new());
    assert_eq!(stack.boots().await.1, None);
    let row = stack.image(id).await;
    assert!(row.failure.unwrap().message.contains("does not have it any more"));
    stack.wait("its end", async || stack.image(id).await.deleted_at.is_some()).await;
    assert_eq!(stack.image_state(id).await, "failed");
    stack.close_and_end().await;
}

#[tokio::test]
async fn an_image_that_does_not_fit_a_machine_stays_for_others_and_the_preview_boots_without() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![costs::dear()]);
    let id = stack.bake().await;
    let reference = stack.baked(id).await;
    stack.cloud.refuses_images.store(true, Ordering::Relaxed);
    let (machine, booted) = stack.boots().await;
    assert_eq!(booted, None);
    assert_eq!(stack.image_state(id).await, "ready");
    assert_eq!(stack.residue_of(id), [reference]);
    let tried = format!("SELECT tried FROM machines WHERE id = '{}'", machine.uuid());
    assert_eq!(stack.world.db.text(&tried).await, format!("[\"image {id}\"]"));
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_newer_image_replaces_the_older_but_not_under_a_machine_that_is_created_with_it() {
    let stack = Stack::start().await;
    let first = stack.bake().await;
    let older = stack.baked(first).await;
    // A process was killed between its note and its call.
    let machine = MachineId::generate().uuid();
    let creating = format!(
        "INSERT INTO machines (id, team_id, project_id, account_id, role, size, arch, state, expires_at, image_id, image) \
         SELECT '{machine}', p.team_id, p.id, p.cloud_provider_id, 'builder', 'small', 'amd64', 'creating', now(), '{}', '{older}' \
         FROM projects p",
        first.uuid(),
    );
    stack.world.db.execute(&creating).await;
    let second = stack.bake().await;
    let newer = stack.baked(second).await;
    let wished = format!("SELECT desired FROM images WHERE id = '{}'", first.uuid());
    stack.wait("the wish", async || stack.world.db.text(&wished).await == "absent").await;
    assert_eq!((stack.residue_of(first), stack.image_state(first).await.as_str()), (vec![older.clone()], "ready"));
    // Whoever comes next asks for the same, and gets it.
    let mut seen = stack.world.db.text("SELECT count(*) FROM machines WHERE role = 'builder'").await;
    assert_eq!(seen, "1");
    let tx = stack.world.db.store().begin().await.unwrap();
    tx.wake(stagely_store::work::kind::MACHINE, machine).await.unwrap();
    tx.commit().await.unwrap();
    stack.image_gone(first).await;
    assert_eq!(stack.cloud.inner.booted(MachineId::from_uuid(machine)), Some(Some(older)));
    seen = stack.world.db.text(&format!("SELECT image FROM machines WHERE id = '{machine}'")).await;
    assert_eq!(seen, stack.cloud.inner.booted(MachineId::from_uuid(machine)).flatten().unwrap());
    assert_eq!((stack.residue_of(second), stack.image_state(second).await.as_str()), (vec![newer], "ready"));
    stack.end().await;
}

#[tokio::test]
async fn a_sweep_keeps_an_image_and_its_parts_and_finds_what_is_of_none() {
    let stack = Stack::start().await;
    let id = stack.bake().await;
    let reference = stack.baked(id).await;
    let gone = stack.bake().await;
    stack.drop_image(gone).await;
    stack.image_gone(gone).await;
    let [image] = &stack.cloud.inner.residue()[..] else { panic!("one image") };
    let of = |id: &str, kind, image_id| Residue { id: id.to_owned(), kind, image: Some(image_id), ..image.clone() };
    stack.cloud.inner.leave_behind(vec![
        image.clone(),
        of("part", ResidueKind::Snapshot, id),
        of("twin", ResidueKind::Image, id),
        of("late", ResidueKind::Image, gone),
        of("unknown", ResidueKind::Image, ImageId::generate()),
        Residue { hold: true, ..of("held", ResidueKind::Image, ImageId::generate()) },
    ]);
    assert_eq!(stack.sweep().await.orphans, 3);
    // What a row says was removed goes at the second look; the others when they have been seen for a while.
    stack.kill();
    let left = || stack.cloud.inner.residue().iter().map(|residue| residue.id.clone()).collect::<Vec<_>>();
    stack.sweep_until("the late one to go", || left() == [&reference, "part", "twin", "unknown", "held"]).await;
    stack.end().await;
}
