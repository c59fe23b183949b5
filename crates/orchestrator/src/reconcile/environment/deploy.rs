//! The wish that an agent gets: the user's own compose files, and one more file laid over them.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use stagely_domain::ingress;
use stagely_domain::spec::{Platform, Resolved};
use stagely_forge::CloneAccess;
use stagely_proto::agent;
use stagely_runtime::registry_credential::Access;
use stagely_store::builds::BuildJob;
use stagely_store::environments::Environment;

use crate::context::Context;
use crate::surface;

const COMMIT: &str = "STAGELY_COMMIT";
const HOOK_SECS: u64 = 300;
const HEALTH_SECS: u64 = 300;
const STOP_GRACE_SECS: u32 = 20;

/// Everything running, as the commit says.
pub fn running(
    context: &Context,
    env: &Environment,
    spec: &Resolved,
    builds: &[BuildJob],
    clone: &CloneAccess,
) -> agent::Preview {
    let preview = &spec.spec.preview;
    let (username, password) = context.registry_password(env.project, Access::Pull);
    agent::Preview {
        wish: agent::preview::Wish::Running.into(),
        checkout: Some(checkout(clone, &env.pr.sha)),
        project_name: project_name(env),
        compose_files: preview.compose.iter().map(ToString::to_string).collect(),
        override_yaml: overlay(context, env, spec, builds).to_string(),
        variables: variables(context, env, spec).into_iter().collect(),
        registry: Some(agent::RegistryAccess {
            host: context.config.registry_host.clone(),
            username,
            password: password.reveal().to_owned(),
            ca_pem: context.registry_ca_pem.clone(),
            mirror_url: context.config.mirror_url.clone(),
        }),
        on_start: hooks(&preview.lifecycle.on_start),
        on_stop: hooks(&preview.lifecycle.on_stop),
        health: Some(health(spec)),
        exposures: exposures(spec),
        stop_grace_secs: STOP_GRACE_SECS,
        masked: vec![clone.token.reveal().to_owned(), password.reveal().to_owned()],
    }
}

/// Hooks, SIGTERM, and everything down. Compose reads its files for that too, and they may insist on variables.
pub fn stopped(context: &Context, env: &Environment, spec: Option<&Resolved>) -> agent::Preview {
    agent::Preview {
        wish: agent::preview::Wish::Stopped.into(),
        project_name: project_name(env),
        compose_files: spec
            .map(|spec| spec.spec.preview.compose.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        variables: spec.map(|spec| variables(context, env, spec).into_iter().collect()).unwrap_or_default(),
        on_stop: spec.map(|spec| hooks(&spec.spec.preview.lifecycle.on_stop)).unwrap_or_default(),
        stop_grace_secs: STOP_GRACE_SECS,
        ..agent::Preview::default()
    }
}

/// The compose project: the same over the environment's life, so that volumes are kept.
fn project_name(env: &Environment) -> String {
    format!("preview-{}", env.hash)
}

fn checkout(clone: &CloneAccess, sha: &str) -> agent::Checkout {
    agent::Checkout {
        url: clone.url.clone(),
        username: clone.username.clone(),
        token: clone.token.reveal().to_owned(),
        sha: sha.to_owned(),
    }
}

/// Images by digest for what we built for the machine's processor, variables for every service. JSON is YAML. The commit
/// is told to what was built, as the one that its image was built at: a push replaces only the containers whose image it
/// changed.
fn overlay(context: &Context, env: &Environment, spec: &Resolved, builds: &[BuildJob]) -> Value {
    let mut variables = variables(context, env, spec);
    variables.remove(COMMIT);
    let mut services = BTreeMap::new();
    for service in &spec.services {
        services.insert(service.clone(), json!({"environment": variables}));
    }
    let platform = Platform::of(spec.spec.preview.arch);
    let runs_here = |job: &&BuildJob| job.platform == platform && job.image_digest.is_some();
    for target in &spec.targets {
        let job = builds.iter().filter(runs_here).find(|job| job.target == target.name);
        let Some((job, digest)) = job.and_then(|job| Some((job, job.image_digest.as_ref()?))) else { continue };
        let name = job.spec.image.split(':').next().unwrap_or_default();
        let image = format!("{}/{name}@{digest}", context.config.registry_host);
        for service in &target.services {
            if let Some(overlaid) = services.get_mut(service) {
                overlaid["image"] = json!(image);
                overlaid["environment"][COMMIT] = json!(job.spec.sha);
            }
        }
    }
    json!({"services": services})
}

/// The commit's own variables, and what Stagely tells every service.
fn variables(context: &Context, env: &Environment, spec: &Resolved) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<String, String> =
        spec.spec.preview.env.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let url = |host: &str| context.preview_url.of(host);
    variables.insert("STAGELY_URL".to_owned(), url(&surface::root_host(context, env)));
    variables.insert("STAGELY_PR".to_owned(), env.pr.number.to_string());
    variables.insert(COMMIT.to_owned(), env.pr.sha.clone());
    for exposure in &spec.exposures {
        let name: String = exposure
            .service
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect();
        let host = exposure.host_name(&env.hash, &context.preview_domain);
        let path = if exposure.path == "/" { "" } else { exposure.path.as_str() };
        variables.entry(format!("STAGELY_URL_{name}")).or_insert_with(|| format!("{}{path}", url(&host)));
    }
    variables
}

fn hooks(hooks: &[stagely_domain::spec::Hook]) -> Vec<agent::Hook> {
    hooks
        .iter()
        .map(|hook| agent::Hook {
            service: hook.service.clone(),
            command: hook.command.clone(),
            timeout_secs: secs(hook.timeout.map_or(HOOK_SECS, |limit| limit.as_secs())),
        })
        .collect()
}

fn health(spec: &Resolved) -> agent::HealthCheck {
    let Some(health) = &spec.spec.preview.health else {
        return agent::HealthCheck { timeout_secs: secs(HEALTH_SECS), ..agent::HealthCheck::default() };
    };
    let exposed = spec.exposures.iter().find(|exposure| exposure.service == health.service);
    agent::HealthCheck {
        service: health.service.clone(),
        path: health.path.clone(),
        port: u32::from(health.port.or(exposed.map(|exposure| exposure.port)).unwrap_or(80)),
        timeout_secs: secs(health.timeout.map_or(HEALTH_SECS, |limit| limit.as_secs())),
    }
}

fn exposures(spec: &Resolved) -> Vec<agent::Exposure> {
    let mut by_label = HashMap::new();
    for exposure in &spec.exposures {
        let label = ingress::label(&exposure.service, exposure.port);
        by_label.insert(
            label.clone(),
            agent::Exposure { label, service: exposure.service.clone(), port: u32::from(exposure.port) },
        );
    }
    by_label.into_values().collect()
}

fn secs(secs: u64) -> u32 {
    u32::try_from(secs).unwrap_or(u32::MAX)
}
