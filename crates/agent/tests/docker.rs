//! Against a real Docker engine and registry, started here. Compose is not needed.

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stagely_agent::docker::{Engine, Exec};
use stagely_proto::agent::build_status::State;
use stagely_proto::agent::desired::Spec;
use stagely_proto::agent::{Build, Builder, Checkout, Desired, RegistryAccess};

use crate::fake_hub::Order;
use crate::rig::{Rig, repository, wait_for};

/// A program of the test's own, ended with it.
struct Daemon(Child);

impl Daemon {
    fn start(program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Docker ends its own containerd on SIGTERM only.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

fn dockerd(rig: &Rig) -> Daemon {
    let root = rig.root.path();
    let path = |name: &str| root.join(name).display().to_string();
    std::fs::create_dir_all(root.join("docker")).unwrap();
    std::fs::write(root.join("docker/daemon.json"), "{}").unwrap();
    Daemon::start(
        "/usr/sbin/dockerd",
        &[
            "--config-file",
            &path("docker/daemon.json"),
            "--iptables=false",
            "--bridge=none",
            "--host",
            &format!("unix://{}", path("docker.sock")),
            "--data-root",
            &path("data"),
            "--exec-root",
            &path("exec"),
            "--pidfile",
            &path("docker.pid"),
        ],
    )
}

#[tokio::test]
#[ignore = "needs dockerd: cargo xtask test e2e"]
async fn an_image_is_built_from_a_commit_and_pushed_and_its_containers_are_seen() {
    let mut rig = Rig::new().await;
    rig.config.tools.docker = "/usr/bin/docker".into();
    let _docker = dockerd(&rig);
    let engine = Engine::new(&rig.config.paths.docker_socket, rig.tasks.clone());
    engine.wait_ready(Duration::from_secs(60)).await.unwrap();

    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let registry = rig.root.path().join("registry.yml");
    let storage = rig.root.path().join("registry").display().to_string();
    let settings = serde_json::json!({
        "version": 0.1, "storage": {"filesystem": {"rootdirectory": storage}}, "http": {"addr": format!("127.0.0.1:{port}")},
    });
    std::fs::write(&registry, settings.to_string()).unwrap();
    let _registry = Daemon::start("docker-registry", &["serve", &registry.display().to_string()]);
    wait_for("the registry", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;

    // This machine's own shell and the libraries it needs, so that nothing comes from the internet.
    let directory = rig.root.path().join("repository");
    let needed = Command::new("ldd").arg("/bin/sh").output().unwrap();
    let needed = String::from_utf8(needed.stdout).unwrap();
    let needed = needed.split_whitespace().filter(|word| word.starts_with('/'));
    for path in needed.chain(["/bin/sh"]) {
        let copy = directory.join(format!("root{path}"));
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(path, copy).unwrap();
    }
    let dockerfile = "FROM scratch\nCOPY root /\nENTRYPOINT [\"/bin/sh\"]\n";
    let (url, sha) =
        repository(&directory, &[("Dockerfile", dockerfile), ("Broken", "FROM scratch\nCOPY missing /\n")]);
    let image = format!("127.0.0.1:{port}/shop/web:1");
    let build = |job: &str, dockerfile: &str| Build {
        job_id: job.to_owned(),
        checkout: Some(Checkout { url: url.clone(), sha: sha.clone(), ..Checkout::default() }),
        context: ".".to_owned(),
        dockerfile: dockerfile.to_owned(),
        image: image.clone(),
        args: HashMap::from([("MODE".to_owned(), "test".to_owned())]),
        ..Build::default()
    };
    let wish = Builder {
        registry: Some(RegistryAccess { host: format!("127.0.0.1:{port}"), ..RegistryAccess::default() }),
        builds: vec![build("good", ""), build("broken", "Broken")],
    };
    let running = rig.start();
    let wish = Desired { generation: 1, spec: Some(Spec::Builder(wish)) };
    rig.hub.tell.send(Order::Send(wish)).await.unwrap();
    let state = |job: &str| rig.hub.last()?.builds.into_iter().find(|status| status.job_id == job);
    let settled =
        |job: &str| state(job).is_some_and(|status| matches!(status.state(), State::Succeeded | State::Failed));
    wait_for("both are done", || settled("good") && settled("broken")).await;
    let good = state("good").unwrap();
    assert_eq!(good.state(), State::Succeeded, "{good:?} {}", rig.hub.log("build/good"));
    assert!(good.digest.starts_with("sha256:") && good.digest.len() == 71, "{}", good.digest);
    let broken = state("broken").unwrap().failure.unwrap();
    assert_eq!(broken.code, "build_failed");
    assert!(broken.message.contains("missing"), "{} {}", broken.message, rig.hub.log("build/broken"));

    // A command in a running container: its output and exit code.
    let run = |service: &str, script: &str| {
        let status = Command::new("/usr/bin/docker")
            .args(["-H", &format!("unix://{}", rig.config.paths.docker_socket.display())])
            .args([
                "run",
                "--detach",
                "--interactive",
                "--network",
                "none",
                "--label",
                "com.docker.compose.oneoff=False",
            ])
            .args(["--label", &format!("com.docker.compose.project={service}")])
            .args(["--label", &format!("com.docker.compose.service={service}")])
            .args(["--env", "WHO=me", image.as_str(), "-c", script])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    };
    run("api", "read line");
    let api = engine.list_containers("api").await.unwrap().remove(0);
    let exec = Exec::new(&engine, &api.id, &["sh", "-c", "echo $WHO; echo no >&2; exit 4"]).await.unwrap();
    let mut printed = Vec::new();
    assert_eq!(exec.run(|bytes| printed.extend_from_slice(bytes)).await.unwrap(), 4);
    // Two streams: which one is read first is not said.
    let printed = String::from_utf8(printed).unwrap();
    assert!(printed == "me\nno\n" || printed == "no\nme\n", "{printed:?}");
    let endless = Exec::new(&engine, &api.id, &["sh", "-c", "(while :; do :; done) & wait"]).await.unwrap();
    let called_off = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        endless.kill().await;
    };
    let both = async { tokio::join!(endless.run(|_| ()), called_off) };
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), both).await.unwrap().0.unwrap(), 137);
    engine.drop_container(&api.id, Duration::from_secs(1)).await.unwrap();

    // What runs is seen with its labels, exit code and output.
    run("shop", "echo started; exit 3");
    let ended = async {
        loop {
            let containers = engine.list_containers("shop").await.unwrap();
            if let [container] = containers.as_slice()
                && container.state.status == "exited"
            {
                break container.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let container = tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
    assert_eq!((container.service(), container.state.exit_code), ("shop", 3));
    assert_eq!(engine.log_tail(&container.id, 5).await.unwrap(), "started\n");
    engine.drop_container(&container.id, Duration::from_secs(1)).await.unwrap();
    engine.drop_container(&container.id, Duration::from_secs(1)).await.unwrap();
    assert!(engine.list_containers("shop").await.unwrap().is_empty());
    running.stop().await;
}
