use super::{Reading, resolve};
use crate::compose::Files;
use crate::spec::{RepoPath, read};

const COMPOSE: &str = "services:\n  web: {build: ./web, ports: ['80:3000']}\n  api: {build: ./api, ports: ['8080:8080', '9090']}\n  db: {image: postgres}\n";

fn files(compose: &str) -> Files {
    let mut files = Files::default();
    files.add(&RepoPath::parse("docker-compose.yml").unwrap(), Some(compose));
    files
}

fn told(text: &str, files: &Files) -> Vec<String> {
    resolve(read(text, "stagely.yaml"), files).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn without_a_file_builds_and_urls_come_from_the_compose_file() {
    let resolved = resolve(Reading::default(), &files(COMPOSE)).unwrap();
    let targets: Vec<&str> = resolved.targets.iter().map(|target| target.name.as_str()).collect();
    assert_eq!(targets, ["web", "api"]);
    let hosts = resolved.hosts("x7k2", "example.dev");
    assert_eq!(hosts, ["x7k2.example.dev", "api--x7k2.example.dev", "api-9090--x7k2.example.dev"]);
}

#[test]
fn names_that_no_compose_file_has_are_told_at_their_place() {
    let text = "version: 2\nbuilds:\n  bakend: {context: ./api}\npreview:\n  expose: [{service: wbe, port: 80}]\n  lifecycle:\n    on_start: [{service: apii, command: x}]\n  health: {service: nope}\n";
    assert_eq!(
        told(text, &files(COMPOSE)),
        [
            "stagely.yaml:3:11: builds.bakend: the compose files have no service `bakend`; they have web, api, db",
            "stagely.yaml:5:22: preview.expose[0].service: the compose files have no service `wbe`; they have web, api, db (did you mean `web`?)",
            "stagely.yaml:7:26: preview.lifecycle.on_start[0].service: the compose files have no service `apii`; they have web, api, db (did you mean `api`?)",
            "stagely.yaml:8:21: preview.health.service: the compose files have no service `nope`; they have web, api, db",
        ]
    );
}

#[test]
fn an_image_that_would_not_run_on_the_previews_machine_is_refused() {
    let wrong = "version: 2\nbuilds:\n  web: {platform: linux/arm64}\n  api: {platforms: [linux/arm64]}\n";
    let fix = "the preview's machine is amd64: add `linux/amd64`, or change `preview.arch`";
    let wanted = [("3:19", "web.platform"), ("4:20", "api.platforms")];
    let wanted = wanted.map(|(at, key)| format!("stagely.yaml:{at}: builds.{key}: {fix}"));
    assert_eq!(told(wrong, &files(COMPOSE)), wanted);
    for right in [
        format!("{wrong}preview: {{arch: arm64}}\n"),
        wrong.replace("linux/arm64", "linux/amd64"),
        wrong.replace("[linux/arm64]", "[linux/arm64, linux/amd64]").replace("web: {platform: linux/arm64}", "web: {}"),
    ] {
        resolve(read(&right, "stagely.yaml"), &files(COMPOSE)).unwrap();
    }
    let unknown = format!("{wrong}preview: {{arch: arm46}}\n");
    assert_eq!(told(&unknown, &files(COMPOSE)).len(), 1, "which machine is meant is not known");
}

#[test]
fn nothing_to_open_and_two_root_urls_are_refused() {
    let closed = files("services:\n  db: {image: postgres}\n");
    assert!(resolve(Reading::default(), &closed).unwrap_err()[0].message.contains("nothing to open"));
    let text = "version: 2\npreview: {expose: [{service: web, port: 1}, {service: api, port: 2}]}\n";
    let told = told(text, &files(COMPOSE));
    assert!(told[0].contains("same host and path"), "{}", told[0]);
}

#[test]
fn ports_of_which_none_serves_the_root_url_are_refused() {
    let expose = |web: &str| {
        let entries = format!("[{{service: web, port: 3000{web}}}, {{service: api, port: 8080, host: api}}]");
        format!("version: 2\npreview: {{expose: {entries}}}\n")
    };
    for web in [", host: web", ", path: /web"] {
        let wanted = "stagely.yaml:2:19: preview.expose: no entry serves the root URL: one of them must have no `host`, \
                      and no `path` or `/`";
        assert_eq!(told(&expose(web), &files(COMPOSE)), [wanted], "{web}");
    }
    for web in ["", ", path: /"] {
        resolve(read(&expose(web), "stagely.yaml"), &files(COMPOSE)).unwrap();
    }
}

#[test]
fn mistakes_of_stagely_yaml_and_of_the_compose_files_are_told_at_once() {
    let text =
        "version: 2\nbuilds:\n  bakend: {machine: huge}\npreview:\n  expose: [{service: wbe, prt: 80}]\n  ttl: soon\n";
    let places = |compose: &str| {
        let told = told(text, &files(compose));
        told.iter().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(": ")).collect::<Vec<_>>()
    };
    assert_eq!(
        places(COMPOSE),
        [
            "stagely.yaml:3:11: builds.bakend",
            "stagely.yaml:3:21: builds.bakend.machine",
            "stagely.yaml:5:12: preview.expose[0].port",
            "stagely.yaml:5:22: preview.expose[0].service",
            "stagely.yaml:5:27: preview.expose[0].prt",
            "stagely.yaml:6:8: preview.ttl",
        ]
    );
    // Which services there are is not known then.
    assert_eq!(
        places("services:\n  web: nginx\n"),
        [
            "stagely.yaml:3:21: builds.bakend.machine",
            "stagely.yaml:5:12: preview.expose[0].port",
            "stagely.yaml:5:27: preview.expose[0].prt",
            "stagely.yaml:6:8: preview.ttl",
            "docker-compose.yml:2:8: services.web",
        ]
    );
    let absent = {
        let mut files = Files::default();
        files.add(&RepoPath::parse("docker-compose.yml").unwrap(), None);
        told("version: 2\npreview: {ttl: soon}\n", &files)
    };
    assert!(absent.len() == 2 && absent[1].contains("no such file"), "{absent:?}");
}

#[test]
fn a_compose_file_that_is_not_named_rightly_is_not_guessed() {
    for text in [
        "version: 2\npreview: {compose: /etc/compose.yml, health: {service: nope}}\n",
        "version: 2\npreview: [compose.yml]\n",
        "version: 2\npreview: {\n",
    ] {
        let reading = read(text, "stagely.yaml");
        assert!(reading.compose().is_empty(), "{text}");
        assert_eq!(resolve(reading, &Files::default()).unwrap_err().len(), 1, "{text}");
    }
    let reading = read("version: 2\npreview: {compose: c.yml, ttl: soon}\n", "stagely.yaml");
    assert_eq!(reading.compose(), [RepoPath::parse("c.yml").unwrap()]);
}
