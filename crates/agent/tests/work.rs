use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use stagely_proto::agent::build_status::State;
use stagely_proto::agent::desired::Spec;
use stagely_proto::agent::preview::Wish;
use stagely_proto::agent::{
    Build, Builder, Checkout, Desired, Exposure, Hook, Observed, Phase, Preview, RegistryAccess,
};
use tokio::net::TcpListener;

use crate::fake_engine::FakeEngine;
use crate::fake_hub::Order;
use crate::rig::{Rig, repository, wait_for};

const CONFIG: &str = r#"
case "$args" in
  *" config "*) echo '{"services":{"web":{"image":"shop/web@sha256:1"},"db":{"image":"postgres"}}}';;
  *) echo "token is s3cret-value";;
esac"#;

fn checkout(rig: &Rig) -> Checkout {
    let directory = rig.root.path().join("repository");
    let files = [("compose.yml", "services: {}"), ("api/Dockerfile", "FROM scratch\n")];
    let (url, sha) = repository(&directory, &files);
    Checkout { url, username: "u".to_owned(), token: "git-token-1".to_owned(), sha }
}

fn preview(generation: u64, checkout: &Checkout, port: u16) -> Desired {
    Desired {
        generation,
        spec: Some(Spec::Preview(Preview {
            wish: Wish::Running.into(),
            checkout: Some(checkout.clone()),
            project_name: "shop".to_owned(),
            compose_files: vec!["compose.yml".to_owned()],
            override_yaml: "services: {}".to_owned(),
            variables: HashMap::from([("TOKEN".to_owned(), "s3cret-value".to_owned())]),
            on_start: vec![Hook {
                service: "web".to_owned(),
                command: "npm run \"db:migrate\" && $(id)".to_owned(),
                timeout_secs: 10,
            }],
            on_stop: vec![Hook { service: "web".to_owned(), command: "flush".to_owned(), timeout_secs: 10 }],
            exposures: vec![Exposure { label: "web-label".to_owned(), service: "web".to_owned(), port: port.into() }],
            stop_grace_secs: 1,
            masked: vec!["s3cret-value".to_owned()],
            ..Preview::default()
        })),
    }
}

fn with(mut wish: Desired, change: impl FnOnce(&mut Preview)) -> Desired {
    if let Some(Spec::Preview(preview)) = &mut wish.spec {
        change(preview);
    }
    wish
}

async fn reached(rig: &Rig, generation: u64, phase: Phase) -> Observed {
    wait_for(&format!("{phase:?} at {generation}"), || {
        rig.hub.last().is_some_and(|o| o.generation == generation && o.phase() == phase)
    })
    .await;
    rig.hub.last().unwrap()
}

async fn with_services() -> (Rig, FakeEngine, TcpListener) {
    let rig = Rig::new().await;
    let engine = FakeEngine::start(&rig.config.paths.docker_socket, &rig.tasks);
    engine.set("web", "running", 0, "healthy");
    engine.set("db", "running", 0, "none");
    engine.set_image("postgres", "postgres@sha256:2");
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (rig, engine, service)
}

const BUILT: &str = "reg:1/shop/web@sha256:1";

/// The web service's image comes from the registry that Stagely pushes to.
fn with_built_image(wish: Desired) -> Desired {
    with(wish, |preview| {
        preview.override_yaml = format!(r#"{{"services":{{"web":{{"image":"{BUILT}"}}}}}}"#);
        preview.registry = Some(stagely_proto::agent::RegistryAccess {
            host: "reg:1".to_owned(),
            username: "u".to_owned(),
            password: "p".to_owned(),
            ..Default::default()
        });
    })
}

#[tokio::test]
async fn images_that_stagely_built_are_asked_of_the_engine_and_left_to_compose_only_when_that_fails() {
    for works in [true, false] {
        let (rig, engine, service) = with_services().await;
        rig.fake_docker(&CONFIG.replace("shop/web@", "reg:1/shop/web@"));
        *engine.pulled.lock().unwrap() = works.then(|| (BUILT.to_owned(), BUILT.to_owned()));
        let wish = with_built_image(preview(1, &checkout(&rig), service.local_addr().unwrap().port()));
        let running = rig.start();
        rig.hub.tell.send(Order::Send(wish)).await.unwrap();
        reached(&rig, 1, Phase::Running).await;
        // {"password":"p","serveraddress":"reg:1","username":"u"} in the URL's Base64.
        let login = "eyJwYXNzd29yZCI6InAiLCJzZXJ2ZXJhZGRyZXNzIjoicmVnOjEiLCJ1c2VybmFtZSI6InUifQ==";
        let asked = format!("fromImage=reg%3A1%2Fshop%2Fweb&tag=sha256%3A1 {login}");
        assert_eq!(*engine.pulls.lock().unwrap(), [asked]);
        let by_compose = rig.calls().iter().any(|call| call.iter().any(|argument| argument == "pull"));
        assert_eq!(by_compose, !works);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_preview_is_brought_up_step_by_step_and_stopped_again() {
    let (rig, engine, service) = with_services().await;
    rig.fake_docker(CONFIG);
    let port = service.local_addr().unwrap().port();
    let wish = preview(1, &checkout(&rig), port);
    let running = rig.start();
    rig.hub.tell.send(Order::Send(wish.clone())).await.unwrap();
    let observed = reached(&rig, 1, Phase::Running).await;
    let steps: Vec<_> = observed.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["checkout", "pull", "up", "on_start", "healthy"]);
    assert!(observed.steps.iter().all(|step| step.finished_ms > 0));
    let web = observed.services.iter().find(|status| status.name == "web").unwrap();
    assert_eq!((web.health.as_str(), web.listening.as_slice()), ("healthy", [u32::from(port)].as_slice()));

    // Only the image that is not here is pulled; nothing is built.
    let calls = rig.calls();
    let rest = |at: usize| calls[at].iter().skip_while(|arg| !arg.ends_with(".override.yml")).skip(1);
    let commands: Vec<Vec<_>> = (0..calls.len()).map(|at| rest(at).map(String::as_str).collect()).collect();
    assert_eq!(commands[1], ["pull", "--quiet", "web"]);
    assert_eq!(commands[2], ["up", "--detach", "--remove-orphans", "--no-build"]);
    // The hook's command is one argument.
    assert_eq!(*engine.execs.lock().unwrap(), [["web", "sh", "-c", "npm run \"db:migrate\" && $(id)"]]);
    assert!(!format!("{calls:?}").contains("s3cret"), "a secret is in an argument list");

    wait_for("logs", || rig.hub.log("compose").contains("token is") && rig.hub.log("hook/0").contains("token is"))
        .await;
    wait_for("a service's log", || rig.hub.log("service/web").contains("bye")).await;
    for stream in ["compose", "hook/0", "service/web"] {
        let log = rig.hub.log(stream);
        assert!(log.contains("***REDACTED***") && !log.contains("s3cret"), "{log}");
    }
    let git = rig.config.paths.state.join("checkout/.git");
    assert!(!text_of_all(&git).contains("git-token-1"), "the token is on disk");

    engine.set("web", "exited", 137, "none");
    wait_for("the change is reported", || {
        rig.hub.last().unwrap().services.iter().any(|status| status.exit_code == 137)
    })
    .await;
    assert_eq!(rig.hub.last().unwrap().generation, 1);

    let stop = with(wish, |preview| preview.wish = Wish::Stopped.into());
    rig.hub.tell.send(Order::Send(Desired { generation: 2, ..stop })).await.unwrap();
    let observed = reached(&rig, 2, Phase::Stopped).await;
    assert!(observed.failure.is_none());
    let last = rig.calls().pop().unwrap().join(" ");
    assert!(last.ends_with("down --volumes --remove-orphans --timeout 1"), "{last}");
    running.stop().await;
}

#[tokio::test]
async fn what_compose_does_not_read_any_more_is_stopped_by_its_name() {
    let (rig, _engine, service) = with_services().await;
    rig.fake_docker(CONFIG);
    let wish = preview(1, &checkout(&rig), service.local_addr().unwrap().port());
    let running = rig.start();
    rig.hub.tell.send(Order::Send(wish.clone())).await.unwrap();
    reached(&rig, 1, Phase::Running).await;
    rig.fake_docker("case \"$args\" in *' -f '*) echo 'required variable X is missing' >&2; exit 15;; esac");
    let before = rig.calls().len();
    let stop = with(wish, |preview| preview.wish = Wish::Stopped.into());
    rig.hub.tell.send(Order::Send(Desired { generation: 2, ..stop })).await.unwrap();
    assert!(reached(&rig, 2, Phase::Stopped).await.failure.is_none());
    let told: Vec<_> = rig.calls()[before..].iter().map(|call| call.join(" ")).collect();
    let by_name = told.iter().filter(|call| !call.contains(" -f "));
    let by_name: Vec<_> = by_name.filter_map(|call| call.split_once(" -p shop ")).map(|(_, rest)| rest).collect();
    assert_eq!(by_name, ["stop --timeout 1", "down --volumes --remove-orphans --timeout 1"], "{told:?}");
    running.stop().await;
}

fn text_of_all(directory: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text += &text_of_all(&path);
        } else {
            text += &String::from_utf8_lossy(&std::fs::read(path).unwrap());
        }
    }
    text
}

#[tokio::test]
async fn a_pull_that_does_not_end_is_called_off_by_a_newer_wish() {
    let (rig, engine, service) = with_services().await;
    rig.fake_docker(&CONFIG.replace("shop/web@", "reg:1/shop/web@"));
    engine.endless.store(true, Ordering::Relaxed);
    let checkout = checkout(&rig);
    let port = service.local_addr().unwrap().port();
    let running = rig.start();
    rig.hub.tell.send(Order::Send(with_built_image(preview(1, &checkout, port)))).await.unwrap();
    wait_for("the pull", || !engine.pulls.lock().unwrap().is_empty()).await;
    let stopped = with(preview(2, &checkout, port), |preview| preview.set_wish(Wish::Stopped));
    rig.hub.tell.send(Order::Send(stopped)).await.unwrap();
    reached(&rig, 2, Phase::Stopped).await;
    running.stop().await;
}

#[tokio::test]
async fn a_newer_wish_calls_off_the_older_ones_work() {
    let (rig, _engine, service) = with_services().await;
    let pids = rig.root.path().join("pids");
    rig.fake_docker(&format!(
        "case \"$args\" in *\" up \"*) if [ ! -e {0} ]; then sleep 300 & echo $! > {0}; wait; fi;; esac\n{CONFIG}",
        pids.display()
    ));
    let checkout = checkout(&rig);
    let port = service.local_addr().unwrap().port();
    let running = rig.start();
    rig.hub.tell.send(Order::Send(preview(1, &checkout, port))).await.unwrap();
    wait_for("the first work hangs", || std::fs::read_to_string(&pids).is_ok_and(|text| text.ends_with('\n'))).await;
    rig.hub.tell.send(Order::Send(preview(2, &checkout, port))).await.unwrap();
    let observed = reached(&rig, 2, Phase::Running).await;
    assert!(observed.failure.is_none());
    let pid = std::fs::read_to_string(&pids).unwrap();
    wait_for("its child is gone", || {
        std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).map_or(true, |stat| stat.contains(") Z"))
    })
    .await;
    // The same generation again changes nothing.
    let calls = rig.calls().len();
    rig.hub.seen.lock().unwrap().observed.clear();
    rig.hub.tell.send(Order::Send(preview(2, &checkout, port))).await.unwrap();
    reached(&rig, 2, Phase::Running).await;
    assert_eq!(rig.calls().len(), calls);
    running.stop().await;
}

#[tokio::test]
async fn failures_say_what_failed_where_and_with_which_words() {
    let (rig, engine, service) = with_services().await;
    let port = service.local_addr().unwrap().port();
    let checkout = checkout(&rig);
    let running = rig.start();
    let fail = async |wish: Desired| {
        let generation = wish.generation;
        rig.hub.tell.send(Order::Send(wish)).await.unwrap();
        reached(&rig, generation, Phase::Failed).await.failure.unwrap()
    };

    let wrong = Checkout { sha: "0".repeat(40), ..checkout.clone() };
    let failure = fail(preview(1, &wrong, port)).await;
    assert_eq!((failure.code.as_str(), failure.phase.as_str()), ("checkout_failed", "checkout"));
    assert!(!failure.log_tail.is_empty());

    rig.fake_docker("echo 'services.web.prots: not allowed' >&2; exit 15");
    let failure = fail(preview(2, &checkout, port)).await;
    assert_eq!(failure.code, "compose_invalid");
    assert!(failure.message.contains("services.web.prots"), "{}", failure.message);

    rig.fake_docker(&format!(
        "case \"$args\" in *' pull '*) echo 'web Error manifest unknown' >&2; exit 1;; esac\n{CONFIG}"
    ));
    let failure = fail(preview(3, &checkout, port)).await;
    assert_eq!((failure.code.as_str(), failure.service.as_str()), ("registry_failed", "web"));

    rig.fake_docker(CONFIG);
    engine.exit_code.store(4, Ordering::Relaxed);
    let failure = fail(preview(4, &checkout, port)).await;
    assert_eq!((failure.code.as_str(), failure.service.as_str(), failure.exit_code), ("hook_failed", "web", 4));
    assert_eq!(failure.log_tail, "token is ***REDACTED***");
    engine.exit_code.store(0, Ordering::Relaxed);

    let quick = |wish| {
        with(wish, |preview| {
            preview.health = Some(stagely_proto::agent::HealthCheck { timeout_secs: 1, ..Default::default() });
        })
    };
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let failure = fail(quick(preview(5, &checkout, closed))).await;
    assert_eq!((failure.code.as_str(), failure.service.as_str()), ("nothing_listens", "web"));

    engine.set("db", "exited", 3, "none");
    let failure = fail(preview(6, &checkout, port)).await;
    assert_eq!((failure.code.as_str(), failure.service.as_str(), failure.exit_code), ("unhealthy", "db", 3));
    assert!(failure.log_tail.contains("token=***REDACTED***, bye"), "{}", failure.log_tail);
    running.stop().await;
}

fn build(checkout: &Checkout, job: &str, context: &str) -> Build {
    Build {
        job_id: job.to_owned(),
        checkout: Some(checkout.clone()),
        context: context.to_owned(),
        image: "registry.test:5000/shop/web:1".to_owned(),
        secrets: HashMap::from([("NPM".to_owned(), "s3cret-value".to_owned())]),
        ..Build::default()
    }
}

fn builds(generation: u64, builds: Vec<Build>) -> Desired {
    let registry = Some(RegistryAccess {
        host: "registry.test:5000".to_owned(),
        password: "registry-password".to_owned(),
        ..RegistryAccess::default()
    });
    Desired { generation, spec: Some(Spec::Builder(Builder { registry, builds })) }
}

#[tokio::test]
async fn builds_succeed_fail_and_are_called_off_one_by_one() {
    let (rig, engine, _service) = with_services().await;
    engine.set_image("registry.test:5000/shop/web:1", "registry.test:5000/shop/web@sha256:abc");
    rig.fake_docker(
        r##"case "$args" in
  *" com.stagely.job=bad "*|*"job=bad "*) echo "Dockerfile:1"; echo "ERROR: failed to solve: exit code: 9" >&2; exit 1;;
  *"job=slow "*) sleep 300;;
  *" build "*) echo "#5 [1/2] FROM x"; echo "#5 CACHED"; echo "#6 [2/2] RUN y"; cat "$(sed 's/.*src=\([^ ]*\).*/\1/' <<< "$args")";;
esac"##,
    );
    let checkout = checkout(&rig);
    let running = rig.start();
    let good = build(&checkout, "good", "api");
    let bad = build(&checkout, "bad", "./api");
    let outside = build(&checkout, "outside", "..");
    let mut slow = build(&checkout, "slow", "api");
    let all = vec![good.clone(), bad.clone(), outside.clone(), slow.clone()];
    rig.hub.tell.send(Order::Send(builds(1, all))).await.unwrap();
    let state = |job: &str| {
        let observed = rig.hub.last()?;
        observed.builds.iter().find(|status| status.job_id == job).cloned()
    };
    let settled = |job: &str, want: State| state(job).is_some_and(|status| status.state() == want);
    wait_for("good", || settled("good", State::Succeeded)).await;
    wait_for("bad", || settled("bad", State::Failed)).await;
    wait_for("outside", || settled("outside", State::Failed)).await;
    wait_for("slow", || settled("slow", State::Building)).await;
    let good_status = state("good").unwrap();
    assert_eq!((good_status.digest.as_str(), good_status.cached_steps, good_status.total_steps), ("sha256:abc", 1, 2));
    let failure = state("bad").unwrap().failure.unwrap();
    assert_eq!((failure.code.as_str(), failure.exit_code), ("build_failed", 9));
    assert!(failure.message.starts_with("Dockerfile, line 1"), "{}", failure.message);
    assert!(state("outside").unwrap().failure.unwrap().message.contains("leads out"));

    slow.cancelled = true;
    rig.hub.tell.send(Order::Send(builds(2, vec![good, bad, outside, slow]))).await.unwrap();
    wait_for("slow is called off", || settled("slow", State::Cancelled)).await;
    assert_eq!(rig.hub.last().unwrap().phase(), Phase::Idle);
    wait_for("the build's log", || rig.hub.log("build/good").contains("REDACTED")).await;
    assert!(!format!("{:?}", rig.calls()).contains("s3cret"));
    assert!(!rig.config.paths.state.join("builds/good").exists());
    running.stop().await;
}
