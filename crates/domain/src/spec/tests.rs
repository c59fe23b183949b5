use super::{Duration, Platform, RepoPath, Spec, json_schema, parse};
use crate::machine::Size;
use crate::yaml::{self, Node, Value};

const FULL: &str = r#"version: 2
builds:
  backend:
    context: "./api"
    platform: "linux/amd64"
    machine: "medium"
preview:
  size: "medium"
  arch: amd64
  provider: hetzner-eu
  region: nbg1
  compose: docker-compose.yml
  expose:
    - { service: frontend, port: 3000 }
    - { service: backend, port: 8080, host: api }
    - { service: backend, port: 8080, path: /api }
  env: { LOG_LEVEL: debug }
  secrets: [STRIPE_KEY]
  access: team
  ttl: 7d
  sleep_after: 1h
  lifecycle:
    on_start: [{ service: backend, command: "npm run db:migrate" }]
    on_stop:  [{ service: backend, command: "npm run flush" }]
  health: { service: frontend, path: /healthz, timeout: 5m }
triggers: { branches: ["*"], labels: { any: [preview] }, paths: ["api/**"], drafts: false, forks: approve }
test: { enabled: true, image: "reg/playwright:v1.40.0", commands: ["npm ci", "npx playwright test"], timeout: 20m }
"#;

#[test]
fn the_documented_example_is_read_whole() {
    let spec = parse(FULL, "stagely.yaml").unwrap();
    let backend = &spec.builds["backend"];
    assert_eq!((backend.context.as_str(), backend.platforms.as_slice()), ("api", &[Platform::Amd64][..]));
    assert_eq!(spec.preview.expose.len(), 3);
    assert_eq!(spec.preview.expose[1].host.as_deref(), Some("api"));
    assert_eq!(spec.preview.lifecycle.on_start[0].command, "npm run db:migrate");
    assert_eq!(spec.preview.sleep_after, Some(Duration::from_secs(3600)));
    assert_eq!(spec.test.commands.len(), 2);
    assert!(!spec.triggers.drafts);
    let stored = serde_json::to_value(&spec).unwrap();
    assert_eq!(serde_json::from_value::<Spec>(stored).unwrap(), spec);
}

#[test]
fn version_alone_is_enough() {
    assert_eq!(parse("version: 2\n", "stagely.yaml").unwrap(), Spec::default());
    assert_eq!(Spec::default().preview.size, Size::Medium);
}

#[test]
fn a_types_name_means_its_size_also_when_nobody_sells_it_any_more() {
    for (name, size) in [("cx11", Size::Small), ("s-2vcpu-4gb", Size::Medium), ("t3.large", Size::Large)] {
        let text = format!("version: 2\nbuilds: {{ web: {{ machine: {name} }} }}\npreview: {{ size: {name} }}\n");
        let spec = parse(&text, "stagely.yaml").unwrap();
        assert_eq!((spec.preview.size, spec.builds["web"].machine), (size, size), "{name}");
    }
    let [mistake] = &parse("version: 2\npreview: { size: cx51 }\n", "stagely.yaml").unwrap_err()[..] else { panic!() };
    assert_eq!(mistake.to_string(), "stagely.yaml:2:18: preview.size: `cx51` is not one of `small`, `medium`, `large`");
}

/// Every mistake names file, line, column and key, says what was expected, and offers the nearest word.
#[test]
fn each_mistake_is_told_with_its_place_and_its_fix() {
    let table = [
        ("", "stagely.yaml:1:1: the file is empty: write `version: 2`, or delete it to use the defaults"),
        ("builds: {}\n", "stagely.yaml:1:1: version: missing: give `version: 2`"),
        ("version: 3\n", "stagely.yaml:1:10: version: version `3` is not known; this Stagely reads version 2"),
        (
            "version: 2\npreveiw: {}\n",
            "stagely.yaml:2:1: preveiw: unknown key `preveiw`; expected one of `version`, `builds`, `preview`, `triggers`, `test` (did you mean `preview`?)",
        ),
        (
            "version: 2\npreview:\n  size: meduim\n",
            "stagely.yaml:3:9: preview.size: `meduim` is not one of `small`, `medium`, `large` (did you mean `medium`?)",
        ),
        (
            "version: 2\nbuilds:\n  api:\n    context: ../other\n",
            "stagely.yaml:4:14: builds.api.context: `../other` is not a path inside the repository (relative, without leaving it)",
        ),
        (
            "version: 2\npreview:\n  expose: [{ service: web }]\n",
            "stagely.yaml:3:12: preview.expose[0].port: missing: give the port inside the container",
        ),
        (
            "version: 2\npreview:\n  expose: [{ service: web, port: 99999 }]\n",
            "stagely.yaml:3:34: preview.expose[0].port: expected a port number from 1 to 65535, found `99999`",
        ),
        (
            "version: 2\npreview: { ttl: soon }\n",
            "stagely.yaml:2:17: preview.ttl: expected a duration such as 90s, 5m, 1h or 7d (at most 365d), found `soon`",
        ),
        ("version: 2\nversion: 2\n", "stagely.yaml:2:1: `version` is given twice (first in line 1)"),
        (
            "version: 2\nbuilds: [api]\n",
            "stagely.yaml:2:9: builds: expected a mapping of images to build, by compose service, found a list",
        ),
        (
            "version: 2\nbuilds:\n  -rm: {}\n",
            "stagely.yaml:3:3: builds.-rm: `-rm` is not a service name (letters, digits, `.`, `_`, `-`)",
        ),
        (
            "version: 2\nbuilds: {a: {platform: linux/arm46}}\n",
            "stagely.yaml:2:24: builds.a.platform: `linux/arm46` is not one of `linux/amd64`, `linux/arm64` (did you mean `linux/arm64`?)",
        ),
        (
            "version: 2\nbuilds:\n  api: { timeout: 90m }\n",
            "stagely.yaml:3:19: builds.api.timeout: `90m` is more than 1h, which is the most that a whole run may take",
        ),
        (
            "version: 2\ntest: { enabled: true }\n",
            "stagely.yaml:2:7: test.image: missing: give the image in which the commands run",
        ),
        (
            "version: 2\npreview: { expose: [{service: a, port: 1, host: A--b}] }\n",
            "stagely.yaml:2:49: preview.expose[0].host: `A--b` is not a host label (a-z, 0-9 and single hyphens, at most 40)",
        ),
    ];
    for (text, wanted) in table {
        let diagnostics = parse(text, "stagely.yaml").unwrap_err();
        let told: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(told, [wanted], "{text}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text = "version: 2\nbuilds:\n  a: {machine: huge}\npreview:\n  szie: small\n  ttl: 1 day\n  lifecycle:\n    on_start: [{service: api}]\n";
    let lines: Vec<usize> = parse(text, "f").unwrap_err().iter().map(|diagnostic| diagnostic.at.line).collect();
    assert_eq!(lines, [3, 5, 6, 8]);
}

#[test]
fn paths_are_kept_inside_the_repository() {
    for (text, wanted) in [("./api", Some("api")), ("a/../b", Some("b")), (".", Some(".")), ("a//b/", Some("a/b"))] {
        assert_eq!(RepoPath::parse(text).as_ref().map(RepoPath::as_str), wanted);
    }
    for text in ["", "/etc", "..", "a/../../b", "a\\b", "a\nb"] {
        assert_eq!(RepoPath::parse(text), None, "{text:?}");
    }
}

#[test]
fn a_build_may_take_as_long_as_a_run() {
    let spec = parse("version: 2\nbuilds:\n  api: { timeout: 60m }\n", "stagely.yaml").unwrap();
    assert_eq!(spec.builds["api"].timeout, Some(Duration::from_secs(3600)));
}

/// A file as an editor reads it.
fn read(node: &Node) -> serde_json::Value {
    match &node.value {
        _ if node.is_null() => serde_json::Value::Null,
        Value::Scalar { text, plain: true } => serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()),
        Value::Scalar { text, plain: false } => text.as_str().into(),
        Value::Sequence(items) => items.iter().map(read).collect(),
        Value::Mapping(entries) => {
            entries.iter().map(|(key, value)| (key.text().unwrap().to_owned(), read(value))).collect()
        }
    }
}

#[test]
fn what_an_editor_says_by_the_json_schema_is_what_stagely_says() {
    let schema = jsonschema::validator_for(&json_schema()).unwrap();
    let refusal = |text: &str| {
        let value = read(&yaml::parse(text).unwrap().unwrap());
        schema.validate(&value).err().map(|error| format!("{}: {error}", error.instance_path()))
    };
    let good = [
        FULL,
        "version: 2\n",
        "version: 2\nbuilds: { web: { platforms: [linux/amd64, linux/arm64], machine: t3.large, cache: true } }\n",
        "version: 2\nbuilds: { web: { platforms: linux/arm64, args: { DEBUG: true, NOTHING: ~ }, services: web } }\n",
        "version: 2\npreview: { size: cx21, region: [nbg1, fsn1], compose: [a.yml, b.yml], sleep_after: never }\n",
        "version: 2\npreview: { env: { PORT: 8080 }, secrets: ONE }\ntriggers: { branches: main, labels: { any: go } }\n",
        "version: 2\ntest: { commands: npm test, timeout: 20m }\n",
        "version: 2\nbuilds:\npreview:\ntriggers:\ntest:\n",
        "version: '2'\npreview: { size: ~, arch: null, compose: , expose: , ttl: , sleep_after: , lifecycle: , health: }\n",
        "version: 2\nbuilds: { web: { context: , platform: , machine: , args: , cache: } }\ntriggers: { labels: , drafts: , forks: }\n",
        "version: 2\npreview: { expose: [{ service: web, port: '80', host: , path: }] }\n",
        "version: 2\npreview: { health: { service: web, path: , port: '065535' }, lifecycle: { on_start: } }\n",
        "version: 2\ntriggers: { drafts: 'false', branches: [1.0, 2024], labels: { any: } }\n",
        "version: 2\ntest: { enabled: 'true', image: web, commands: [true] }\n",
    ];
    for text in good {
        parse(text, "stagely.yaml").unwrap();
        assert_eq!(refusal(text), None, "{text}");
    }
    let bad = [
        "builds: {}\n",
        "version: 3\n",
        "version: 2\npreveiw: {}\n",
        "version: 2\nbuilds: { web: { platform: linux/sparc } }\n",
        "version: 2\npreview: { size: cx51 }\n",
        "version: 2\npreview: { ttl: soon }\n",
        "version: 2\npreview: { sleep_after: ever }\n",
        "version: 2\npreview: { env: { 2ND: x } }\n",
        "version: 2\npreview: { expose: [{ service: web }] }\n",
        "version: ~\n",
        "version: 2\nbuilds: { web: }\n",
        "version: 2\npreview: { region: [~] }\n",
        "version: 2\npreview: { expose: [~] }\n",
        "version: 2\npreview: { expose: [{ service: , port: 80 }] }\n",
        "version: 2\npreview: { expose: [{ service: web, port: }] }\n",
        "version: 2\npreview: { expose: [{ service: web, port: '65536' }] }\n",
        "version: 2\npreview: { expose: [{ service: web, port: 0 }] }\n",
        "version: 2\npreview: { ttl: 5 }\n",
        "version: 2\npreview: 'no'\n",
        "version: 2\ntriggers: { drafts: 'no' }\n",
    ];
    for text in bad {
        parse(text, "stagely.yaml").unwrap_err();
        assert!(refusal(text).is_some(), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "[ -~\n]{0,200}") {
        let _ = parse(&text, "f");
    }

    #[test]
    fn durations_survive_being_written(secs in 1u64..31_536_000) {
        let duration = Duration::from_secs(secs);
        proptest::prop_assert_eq!(Duration::parse(&duration.to_string()), Some(duration));
    }
}
