//! From a push to its URL, and how a machine boots.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use stagely_cloud::qemu::{Config, Qemu};
use stagely_cloud::{Cloud, contract};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::InstallationId;
use stagely_domain::machine::{Arch, Size};
use tokio::time::{Instant, sleep};
use xtask::sample;

use super::{Promise, REPETITIONS, Samples};
use crate::artifacts::Beside;
use crate::control_plane::Mode;
use crate::pull_request::PullRequest;
use crate::stack::Stack;
use crate::{artifacts, demo, machine, progress};

/// Phases that are ours alone; the others wait for builds, boots and containers.
const OURS: [&str; 5] = ["queue", "read", "builder", "routed", "proved"];
const WARM: Duration = Duration::from_secs(300);
/// From a push to its URL, once there are a template and a build cache.
const PROMISED: Duration = Duration::from_secs(20);

pub(super) async fn measure() -> anyhow::Result<Vec<Promise>> {
    let mut promises = boots().await?;
    demo::on_a_stack(Mode::Together, Beside::Nothing, async |stack| {
        let begun = Instant::now();
        let mut pull = demo::first_push(stack).await?;
        let cold = begun.elapsed();
        promises.extend(pushes(&mut pull, cold).await?);
        promises.push(wakes(stack, &pull).await?);
        promises.push(opens(stack, cold).await?);
        demo::last(stack, &pull).await
    })
    .await?;
    Ok(promises)
}

/// Cold boots beside copies of a template, both until the agent is there. No machine outlives it.
async fn boots() -> anyhow::Result<Vec<Promise>> {
    let directory = tempfile::tempdir().context("make a state directory")?;
    let measured = demo::unless_interrupted(boots_in(directory.path())).await;
    machine::clear(directory.path());
    measured
}

async fn boots_in(directory: &Path) -> anyhow::Result<Vec<Promise>> {
    let (image_dir, agent_binary) = (artifacts::image().await?, artifacts::agent().await?);
    let (mut cold, mut restored) = (Samples::default(), Samples::default());
    for turn in 0..REPETITIONS {
        // Making a template is a cold boot to the agent's first word, and the saving of its memory.
        let config = Config {
            state_dir: directory.join("qemu").join(turn.to_string()),
            image_dir: image_dir.clone(),
            agent_binary: agent_binary.clone(),
            templates: true,
        };
        let fresh = Qemu::new(config, Arc::new(SystemClock))?;
        let begun = Instant::now();
        fresh.prepare(Size::Small, Arch::Amd64).await?;
        cold.add(begun.elapsed());
        let begun = Instant::now();
        let created = fresh.create(&contract::request(InstallationId::generate(), &SystemClock)).await?;
        restored.add(begun.elapsed());
        fresh.delete(&created.id).await?;
        progress(format!("boot: cold {cold}, restored {restored}"));
    }
    let ratio = cold.median().as_secs_f64() / restored.median().as_secs_f64();
    Ok(vec![
        Promise {
            what: "boot of a restored machine, with identity".to_owned(),
            wanted: "<= 5 s".to_owned(),
            got: restored.to_string(),
            beside: format!("cold {cold}"),
            holds: restored.median() <= Duration::from_secs(5),
        },
        Promise {
            what: "restored against cold boot".to_owned(),
            wanted: ">= 10 x faster".to_owned(),
            got: format!("{ratio:.0} x"),
            beside: format!("cold {cold}"),
            holds: ratio >= 10.0,
        },
    ])
}

/// What it took from nothing, templates included when they were not there.
fn beside(cold: Duration) -> String {
    format!("set up and first push {:.1} s (once)", cold.as_secs_f64())
}

/// Pushes to a live pull request, whose machine runs, that change one image of three.
async fn pushes(pull: &mut PullRequest<'_>, cold: Duration) -> anyhow::Result<Vec<Promise>> {
    let mut warm = Samples::default();
    let mut phases: BTreeMap<&str, Samples> = BTreeMap::new();
    for turn in 0..=REPETITIONS {
        let begun = Instant::now();
        pull.push(&sample::with_version(&format!("turn {turn}"))).await;
        pull.live(WARM).await?;
        let taken = begun.elapsed();
        demo::waterfall(pull, &format!("push {turn}"), taken).await?;
        if turn == 0 {
            // The first push after the machine came up pays for what no later one does.
            continue;
        }
        warm.add(taken);
        for phase in pull.run().await?["timeline"].as_array().into_iter().flatten() {
            let ours = OURS.into_iter().find(|name| phase["name"] == *name);
            if let (Some(name), Some(ms)) = (ours, phase["ms"].as_u64()) {
                phases.entry(name).or_default().add(Duration::from_millis(ms));
            }
        }
    }
    let mut promises = vec![Promise {
        what: "push to a live pull request, build cache".to_owned(),
        wanted: "<= 20 s".to_owned(),
        got: warm.to_string(),
        beside: beside(cold),
        holds: warm.median() <= PROMISED,
    }];
    promises.extend(OURS.map(|name| {
        let samples = phases.remove(name).unwrap_or_default();
        Promise {
            what: format!("phase `{name}` of such a push"),
            wanted: "<= 300 ms".to_owned(),
            got: samples.to_string(),
            beside: format!("whole push {warm}"),
            holds: samples.count() == REPETITIONS && samples.median() <= Duration::from_millis(300),
        }
    }));
    Ok(promises)
}

/// Further pull requests of the repository: each gets a machine of its own, restored from the template, and its images
/// are built with the cache of those before. The first one stays open, and with it the builder.
async fn opens(stack: &Stack, cold: Duration) -> anyhow::Result<Promise> {
    let mut samples = Samples::default();
    for turn in 1..=REPETITIONS {
        let (branch, files) = (format!("another-{turn}"), sample::with_version(&format!("another {turn}")));
        let begun = Instant::now();
        let pull = PullRequest::open(stack, demo::REPO, &branch, &files).await;
        pull.live(WARM).await?;
        let taken = begun.elapsed();
        demo::waterfall(&pull, &format!("new pull request {turn}"), taken).await?;
        samples.add(taken);
        pull.close_and_see_it_go().await?;
    }
    Ok(Promise {
        what: "new pull request, template and build cache".to_owned(),
        wanted: "<= 20 s".to_owned(),
        got: samples.to_string(),
        beside: beside(cold),
        holds: samples.median() <= PROMISED,
    })
}

/// Put to sleep and visited.
async fn wakes(stack: &Stack, pull: &PullRequest<'_>) -> anyhow::Result<Promise> {
    let (host, mut samples) = (pull.host(), Samples::default());
    let mut awake = Samples::default();
    for _ in 0..REPETITIONS {
        let begun = Instant::now();
        stack.visit(&host, "/").await?;
        awake.add(begun.elapsed());
        pull.sleep().await?;
        let begun = Instant::now();
        while !stack.visit(&host, "/").await.is_ok_and(|(status, page)| status == 200 && page.contains("Guestbook")) {
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(60), "the preview does not wake");
            sleep(Duration::from_millis(50)).await;
        }
        samples.add(begun.elapsed());
        // The comment follows; the next turn begins when it is settled.
        pull.says("Preview: Live", Duration::from_secs(60)).await?;
    }
    Ok(Promise {
        what: "asleep to the first byte of the page".to_owned(),
        wanted: "<= 5 s".to_owned(),
        got: samples.to_string(),
        beside: format!("awake {awake}"),
        holds: samples.median() <= Duration::from_secs(5),
    })
}
