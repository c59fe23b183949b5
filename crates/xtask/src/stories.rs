//! The end-to-end tests: what authors of pull requests go through, on real machines, one story after the other.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::{Instant, sleep};
use xtask::sample::Files;

use crate::artifacts::Beside;
use crate::control_plane::{Mode, SERVICES};
use crate::demo::{self, REPO};
use crate::pull_request::PullRequest;
use crate::stack::Stack;
use crate::{machine, print_result, progress};

/// How long a preview of the little application may take; it takes half a minute when nothing else runs.
const LITTLE: Duration = Duration::from_secs(300);

/// Runs them on one stack: the sample's own story first, and its end last. With `only`, those whose name contains it,
/// without the sample, which takes most of the time.
pub async fn run(only: Option<&str>) -> anyhow::Result<()> {
    demo::on_a_stack(Mode::Together, Beside::Tests, async |stack| {
        let mut told = Told { only, passed: 0 };
        let mut sample = None;
        if only.is_none() {
            let pull = sample.insert(demo::first_push(stack).await?);
            told.story("a second commit is live with the same data", demo::second_push(stack, pull)).await?;
        } else {
            demo::set_up(stack).await?;
        }
        told.story("mistakes in stagely.yaml are told all at once", mistakes(stack)).await?;
        told.story("a compose file that does not parse", broken_compose(stack)).await?;
        told.story("a label turns the preview on and off", labels(stack)).await?;
        told.story("an image that does not build", broken_image(stack)).await?;
        told.story("a service that never becomes healthy", never_healthy(stack)).await?;
        told.story("a hook that exits 3", failing_hook(stack)).await?;
        told.story("a port that nobody listens on", nobody_listens(stack)).await?;
        told.story("a branch named like a command, without stagely.yaml", odd_branch(stack)).await?;
        told.story("a push during a build", push_during_build(stack)).await?;
        told.story("asleep, and woken by a visit", sleep_and_wake(stack)).await?;
        stack.switch(Mode::Separate).await?;
        progress("the control plane is six processes now");
        told.story("close during boot", close_during(stack, "boot")).await?;
        told.story("close during build", close_during(stack, "build")).await?;
        told.story("close during deploy", close_during(stack, "deploy")).await?;
        if let Some(pull) = &mut sample {
            told.story("the sample goes on under six processes", six_processes(stack, pull)).await?;
        }
        told.story("kill -9 of each service while a push is deployed", kills(stack)).await?;
        if let Some(pull) = &sample {
            told.story("closed, and nothing is left", demo::last(stack, pull)).await?;
        }
        told.story("machines whose control plane is gone end themselves", abandoned(stack)).await?;
        ensure!(told.passed > 0, "no story's name contains {:?}", only.unwrap_or_default());
        print_result(format!("{} passed, 0 failed", told.passed));
        Ok(())
    })
    .await
}

/// How many went well. The first that does not ends the run: what comes after would stand on its remains.
struct Told<'o> {
    only: Option<&'o str>,
    passed: u32,
}

impl Told<'_> {
    async fn story(&mut self, name: &str, story: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        if self.only.is_some_and(|only| !name.contains(only)) {
            return Ok(());
        }
        let begun = Instant::now();
        story.await.with_context(|| format!("story: {name}"))?;
        print_result(format!("story: {name} ... ok ({} s)", begun.elapsed().as_secs()));
        self.passed += 1;
        Ok(())
    }
}

/// One service, of Docker's smallest image, in place of the sample's three.
struct Little {
    compose: String,
    stagely: Option<String>,
    dockerfile: String,
    version: String,
}

impl Default for Little {
    fn default() -> Self {
        Self {
            compose: "services:\n  web:\n    build: ./little\n    ports: [\"8080:8080\"]\n    init: true\n".to_owned(),
            stagely: Some("version: 2\npreview: { size: small }\n".to_owned()),
            dockerfile:
                "FROM busybox:1\nCOPY index.html /www/\nCMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n"
                    .to_owned(),
            version: "1".to_owned(),
        }
    }
}

impl Little {
    fn files(&self) -> Files {
        let page = page(&self.version);
        let files = [
            ("docker-compose.yml", self.compose.as_str()),
            ("little/Dockerfile", self.dockerfile.as_str()),
            ("little/index.html", page.as_str()),
        ];
        let stagely = self.stagely.as_deref().map(|text| ("stagely.yaml", text));
        files.into_iter().chain(stagely).map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).collect()
    }

    fn version(version: &str) -> Self {
        Self { version: version.to_owned(), ..Self::default() }
    }

    fn with_stagely(stagely: &str) -> Self {
        Self { stagely: Some(stagely.to_owned()), ..Self::default() }
    }
}

fn page(version: &str) -> String {
    format!("little version {version}")
}

/// The little page at `host` is of `version`.
async fn shows(stack: &Stack, host: &str, version: &str) -> anyhow::Result<()> {
    let (status, shown) = stack.visit(host, "/").await?;
    ensure!(status == 200 && shown == page(version), "the page answers {status}: {shown}");
    Ok(())
}

/// Every one of `words` is in the comment.
fn told(comment: &str, words: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<_> = words.iter().filter(|word| !comment.contains(**word)).collect();
    ensure!(missing.is_empty(), "the comment does not say {missing:?}:\n{comment}");
    Ok(())
}

/// A preview that fails says why, keeps no machine, and goes with its pull request.
async fn fails(stack: &Stack, branch: &str, files: &Files, words: &[&str]) -> anyhow::Result<()> {
    let pull = PullRequest::open(stack, REPO, branch, files).await;
    told(&pull.failed(LITTLE).await?, words)?;
    pull.no_machine(Duration::from_secs(60)).await?;
    pull.close_and_see_it_go().await
}

async fn mistakes(stack: &Stack) -> anyhow::Result<()> {
    let stagely = "version: 2
biulds: {}
builds:
  wbe: { context: ./little }
  web: { context: ../../etc, platform: linux/sparc }
preview:
  size: huge
  arch: amd65
  ttl: soon
  expose:
    - { service: web, port: 80800 }
    - { service: nobody, port: 80 }
  access: everyone
  lifecycle:
    on_start: [{ command: [1, 2] }]
";
    let mut pull = PullRequest::open(stack, REPO, "mistaken", &Little::with_stagely("").files()).await;
    told(&pull.failed(LITTLE).await?, &["config_invalid", "stagely.yaml:1:1: the file is empty"])?;
    pull.push(&Little::with_stagely(stagely).files()).await;
    let comment = pull.failed(LITTLE).await?;
    told(&comment, &["biulds", "builds", "huge", "small", "amd65", "soon", "80800", "everyone", "stagely.yaml:2:1"])?;
    pull.no_machine(Duration::from_secs(10)).await?;
    // Mended by a push.
    pull.push(&Little::version("mended").files()).await;
    let host = pull.live(LITTLE).await?;
    shows(stack, &host, "mended").await?;
    pull.close_and_see_it_go().await
}

async fn broken_compose(stack: &Stack) -> anyhow::Result<()> {
    let little = Little { compose: "services:\n  web: [\n".to_owned(), ..Little::default() };
    fails(stack, "broken-compose", &little.files(), &["docker-compose.yml", "compose_invalid"]).await
}

async fn labels(stack: &Stack) -> anyhow::Result<()> {
    let little = Little::with_stagely("version: 2\ntriggers: { labels: { any: [preview] } }\n");
    let pull = PullRequest::open(stack, REPO, "labelled", &little.files()).await;
    pull.ignored("triggers.labels", LITTLE).await?;
    ensure!(pull.comment().is_empty(), "a pull request without a preview was commented on: {}", pull.comment());
    pull.label(&["preview"]).await;
    pull.says("Preview: ", LITTLE).await?;
    pull.label(&[]).await;
    told(&pull.says("Preview: Removed", LITTLE).await?, &["none of the labels preview is there"])?;
    pull.no_machine(LITTLE).await?;
    pull.close().await;
    Ok(())
}

async fn broken_image(stack: &Stack) -> anyhow::Result<()> {
    let dockerfile = "FROM busybox:1\nRUN echo one step before the end && exit 7\n".to_owned();
    let little = Little { dockerfile, ..Little::default() };
    let words = ["build_failed", "service ` web `", "exit code", "one step before the end"];
    fails(stack, "broken-image", &little.files(), &words).await
}

async fn never_healthy(stack: &Stack) -> anyhow::Result<()> {
    let stagely = "version: 2\npreview: { size: small, health: { service: web, timeout: 20s } }\n";
    let mut little = Little::with_stagely(stagely);
    little
        .compose
        .push_str("    healthcheck: { test: [CMD, \"false\"], interval: 1s, retries: 2, start_period: 0s }\n");
    fails(stack, "never-healthy", &little.files(), &["service ` web `", "healthy"]).await
}

async fn failing_hook(stack: &Stack) -> anyhow::Result<()> {
    let little = Little::with_stagely(
        "version: 2
preview:
  size: small
  lifecycle:
    on_start: [{ service: web, command: \"echo no such table; exit 3\" }]
",
    );
    let words = ["hook_failed", "service ` web `", "exit code 3", "no such table"];
    fails(stack, "failing-hook", &little.files(), &words).await
}

async fn nobody_listens(stack: &Stack) -> anyhow::Result<()> {
    let little = Little::with_stagely(
        "version: 2\npreview: { size: small, expose: [{ service: web, port: 9999 }], \
         health: { service: web, path: /, timeout: 20s } }\n",
    );
    fails(stack, "nobody-listens", &little.files(), &["web", "9999"]).await
}

async fn odd_branch(stack: &Stack) -> anyhow::Result<()> {
    const BRANCH: &str = "$(reboot);\"'";
    let little = Little { stagely: None, ..Little::default() };
    stack.host.delete(REPO, BRANCH, "main", "stagely.yaml").await;
    let pull = PullRequest::open(stack, REPO, BRANCH, &little.files()).await;
    let host = pull.live(LITTLE).await?;
    shows(stack, &host, "1").await?;
    told(&pull.comment(), &[BRANCH])?;
    pull.close_and_see_it_go().await
}

async fn push_during_build(stack: &Stack) -> anyhow::Result<()> {
    let slow = Little { dockerfile: slow_image(), ..Little::version("slow") };
    let mut pull = PullRequest::open(stack, REPO, "impatient", &slow.files()).await;
    reached(&pull, "build").await?;
    pull.push(&Little::version("quick").files()).await;
    let pushed = Instant::now();
    let host = pull.live(LITTLE).await?;
    shows(stack, &host, "quick").await?;
    ensure!(pushed.elapsed() < SLOW, "the push waited for the build that it made needless");
    pull.close_and_see_it_go().await
}

async fn sleep_and_wake(stack: &Stack) -> anyhow::Result<()> {
    let pull = PullRequest::open(stack, REPO, "sleepy", &Little::version("sleepy").files()).await;
    let host = pull.live(LITTLE).await?;
    pull.sleep().await?;
    let begun = Instant::now();
    while shows(stack, &host, "sleepy").await.is_err() {
        ensure!(begun.elapsed() < Duration::from_secs(60), "the preview does not wake");
        sleep(Duration::from_millis(50)).await;
    }
    progress(format!("  the page was there {:.1} s after the first visit", begun.elapsed().as_secs_f64()));
    pull.says("Preview: Live", Duration::from_secs(60)).await?;
    pull.close_and_see_it_go().await
}

/// How long the slow image takes to build.
const SLOW: Duration = Duration::from_secs(240);

fn slow_image() -> String {
    format!("FROM busybox:1\nRUN sleep {}\nCOPY index.html /www/\n", SLOW.as_secs())
}

async fn close_during(stack: &Stack, phase: &str) -> anyhow::Result<()> {
    let mut little = Little::version(phase);
    match phase {
        "build" => little.dockerfile = slow_image(),
        "deploy" => little
            .compose
            .push_str("    healthcheck: { test: [CMD, \"false\"], interval: 5s, retries: 60, start_period: 0s }\n"),
        _ => {}
    }
    let pull = PullRequest::open(stack, REPO, &format!("closed-during-{phase}"), &little.files()).await;
    reached(&pull, phase).await?;
    let closed = Instant::now();
    pull.close_and_see_it_go().await?;
    ensure!(closed.elapsed() < Duration::from_secs(60), "removing took {} s", closed.elapsed().as_secs());
    Ok(())
}

/// Waits until the newest run is in the midst of `phase`.
async fn reached(pull: &PullRequest<'_>, phase: &str) -> anyhow::Result<()> {
    let until = Instant::now() + LITTLE;
    loop {
        let environment = pull.environment().await?.unwrap_or_default();
        let (run, machine) = (&environment["latest_run"]["state"], &environment["machine"]["state"]);
        let there = match phase {
            "boot" => matches!(machine.as_str(), Some("intended" | "creating" | "booting")),
            "build" => pull.building().await?,
            _ => run == "deploying",
        };
        if there {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("{phase} was not reached: the run is {run}, the machine {machine}");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn six_processes(stack: &Stack, sample: &mut PullRequest<'_>) -> anyhow::Result<()> {
    let (status, page) = stack.visit(&sample.host(), "/").await?;
    ensure!(status == 200 && xtask::sample::shows_version(&page, "two"), "the page answers {status}: {page}");
    sample.push(&xtask::sample::with_version("three")).await;
    let host = sample.live(LITTLE).await?;
    let (_, page) = stack.visit(&host, "/").await?;
    ensure!(xtask::sample::shows_version(&page, "three") && page.contains("Kept over the push"), "the page: {page}");
    Ok(())
}

/// Each service is killed once in the midst of a deployment and started again by its supervisor.
async fn kills(stack: &Stack) -> anyhow::Result<()> {
    let mut pull = PullRequest::open(stack, REPO, "killed", &Little::version("0").files()).await;
    pull.live(LITTLE).await?;
    for service in SERVICES {
        let version = format!("after {service}");
        pull.push(&Little::version(&version).files()).await;
        reached(&pull, if service == "stagely-builder-scheduler" { "build" } else { "deploy" }).await?;
        stack.kill(service).await?;
        let killed = Instant::now();
        let host = pull.live(LITTLE).await?;
        shows(stack, &host, &version).await?;
        progress(format!("  killed {service}: live {:.1} s later", killed.elapsed().as_secs_f64()));
    }
    pull.close_and_see_it_go().await
}

/// Nobody is there to remove them: their leases lapse, and nothing is left.
async fn abandoned(stack: &Stack) -> anyhow::Result<()> {
    let pull = PullRequest::open(stack, REPO, "abandoned", &Little::version("abandoned").files()).await;
    pull.live(LITTLE).await?;
    ensure!(!machine::left(&stack.state).is_empty(), "there is no machine to look at");
    stack.abandon().await;
    let begun = Instant::now();
    loop {
        let left = machine::left(&stack.state);
        if left.is_empty() {
            progress(format!("  both machines were gone {} s after their control plane", begun.elapsed().as_secs()));
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(240), "still there: {left:?}");
        sleep(Duration::from_millis(500)).await;
    }
}
