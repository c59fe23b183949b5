//! The one table of routes, and the router made from it.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use stagely_domain::role::Role;

use crate::error::ApiError;
use crate::extract::MAX_JSON_BYTES;
use crate::json::{Page, PageQuery};
use crate::operation::{Operation, Permission};
use crate::registry::endpoint as registry_token;
use crate::routes::{cloud_accounts, costs, deliveries, environments, images, logs, projects, runs, status};
use crate::webhooks::github;
use crate::{App, agent_binaries, openapi};

/// The longest that a handler may take to begin its answer. Log streams go on after that.
const HANDLER_DEADLINE: Duration = Duration::from_secs(30);

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;
const VIEWER: Permission = Permission::Role(Role::Viewer);
const MEMBER: Permission = Permission::Role(Role::Member);
const ADMIN: Permission = Permission::Role(Role::Admin);
const LOG_TYPES: &[&str] = &["text/plain", "text/event-stream"];

/// Every route that there is.
#[must_use]
pub fn operations() -> Vec<Operation> {
    [service_operations(), project_operations(), image_operations(), environment_operations(), run_operations()]
        .into_iter()
        .flatten()
        .collect()
}

fn service_operations() -> Vec<Operation> {
    vec![
        Operation::new(GET, "/healthz", "healthz", Permission::Public, healthz)
            .summary("Says that the process serves.")
            .other(200, &["text/plain"]),
        Operation::new(GET, "/api/v1/openapi.json", "openapi", Permission::Public, document)
            .summary("This document.")
            .other(200, &["application/json"]),
        Operation::new(POST, "/webhooks/github", "github_webhook", Permission::Signature, github::receive)
            .summary("Takes a webhook delivery of GitHub in.")
            .json::<github::Receipt>(202),
        Operation::new(GET, "/registry/token", "registry_token", Permission::RegistryCredential, registry_token::get)
            .summary("Issues a token for the image registry.")
            .json::<registry_token::Token>(200),
        Operation::new(
            POST,
            "/registry/token",
            "registry_token_oauth",
            Permission::RegistryCredential,
            registry_token::post,
        )
        .summary("Issues a token for the image registry, asked for with a form.")
        .json::<registry_token::Token>(200),
        Operation::new(
            GET,
            "/agent/v1/download/{file}",
            "agent_download",
            Permission::Public,
            agent_binaries::download,
        )
        .summary("The agent program for `amd64` or `arm64`; with `.sha256`, its checksum.")
        .other(200, &["application/octet-stream", "text/plain"]),
        Operation::new(GET, "/api/v1/whoami", "whoami", VIEWER, status::whoami)
            .summary("The asker.")
            .json::<status::Whoami>(200),
        Operation::new(GET, "/api/v1/status", "status", VIEWER, status::status)
            .summary("How much there is of everything.")
            .json::<status::Status>(200),
        Operation::new(GET, "/api/v1/deliveries", "list_deliveries", VIEWER, deliveries::list)
            .summary("Webhook deliveries for the team's repositories, newest first.")
            .query::<PageQuery>()
            .json::<Page<deliveries::Delivery>>(200),
        Operation::new(GET, "/api/v1/deliveries/{id}", "get_delivery", VIEWER, deliveries::get)
            .summary("One delivery with its decision and the reason.")
            .json::<deliveries::Delivery>(200),
        Operation::new(POST, "/api/v1/deliveries/{id}/replay", "replay_delivery", MEMBER, deliveries::replay)
            .summary("Applies a delivery again.")
            .json::<deliveries::Replayed>(202),
    ]
}

fn project_operations() -> Vec<Operation> {
    vec![
        Operation::new(GET, "/api/v1/projects", "list_projects", VIEWER, projects::list)
            .summary("The team's projects, oldest first.")
            .query::<PageQuery>()
            .json::<Page<projects::Project>>(200),
        Operation::new(POST, "/api/v1/projects", "create_project", ADMIN, projects::create)
            .summary("Watches a repository.")
            .body::<projects::NewProject>()
            .json::<projects::Project>(201),
        Operation::new(GET, "/api/v1/projects/{id}", "get_project", VIEWER, projects::get)
            .summary("One project.")
            .json::<projects::Project>(200),
        Operation::new(DELETE, "/api/v1/projects/{id}", "delete_project", ADMIN, projects::delete)
            .summary("Stops watching a repository."),
        Operation::new(GET, "/api/v1/projects/{id}/costs", "list_project_costs", VIEWER, costs::of_project)
            .summary("What the project's machines cost, one line per day and currency.")
            .query::<costs::CostsQuery>()
            .json::<Page<costs::DayCost>>(200),
        Operation::new(GET, "/api/v1/cloud-accounts", "list_cloud_accounts", VIEWER, cloud_accounts::list)
            .summary("The team's cloud accounts, without their credentials.")
            .json::<Page<cloud_accounts::CloudAccount>>(200),
        Operation::new(POST, "/api/v1/cloud-accounts", "create_cloud_account", ADMIN, cloud_accounts::create)
            .summary("Adds a cloud account.")
            .body::<cloud_accounts::NewCloudAccount>()
            .json::<cloud_accounts::CloudAccount>(201),
        Operation::new(GET, "/api/v1/cloud-accounts/{id}", "get_cloud_account", VIEWER, cloud_accounts::get)
            .summary("One cloud account, without its credentials.")
            .json::<cloud_accounts::CloudAccount>(200),
        Operation::new(PATCH, "/api/v1/cloud-accounts/{id}", "change_cloud_account", ADMIN, cloud_accounts::change)
            .summary("Changes a cloud account's name, settings or credentials.")
            .body::<cloud_accounts::CloudAccountChange>()
            .json::<cloud_accounts::CloudAccount>(200),
        Operation::new(DELETE, "/api/v1/cloud-accounts/{id}", "delete_cloud_account", ADMIN, cloud_accounts::delete)
            .summary("Forgets a cloud account that no machine and no project uses."),
    ]
}

fn image_operations() -> Vec<Operation> {
    vec![
        Operation::new(POST, "/api/v1/cloud-accounts/{id}/images", "bake_image", ADMIN, images::create)
            .summary("Makes an image with Docker, the agent and container images, which the account's machines boot.")
            .body::<images::NewImage>()
            .json::<images::AcceptedImage>(202),
        Operation::new(GET, "/api/v1/images", "list_images", VIEWER, images::list)
            .summary("The team's images, newest first; those that failed too.")
            .query::<PageQuery>()
            .json::<Page<images::Image>>(200),
        Operation::new(GET, "/api/v1/images/{id}", "get_image", VIEWER, images::get)
            .summary("One image.")
            .json::<images::Image>(200),
        Operation::new(DELETE, "/api/v1/images/{id}", "delete_image", ADMIN, images::delete)
            .summary("Removes an image, also one that is being made; machines that run are not touched.")
            .json::<images::AcceptedImage>(202),
    ]
}

fn environment_operations() -> Vec<Operation> {
    let accepted = |operation: Operation| operation.json::<environments::Accepted>(202);
    vec![
        Operation::new(GET, "/api/v1/environments", "list_environments", VIEWER, environments::list)
            .summary("The team's environments, newest first.")
            .query::<environments::EnvironmentsQuery>()
            .json::<Page<environments::Environment>>(200),
        Operation::new(GET, "/api/v1/environments/{id}", "get_environment", VIEWER, environments::get)
            .summary("One environment with its machine, services and latest run.")
            .json::<environments::EnvironmentDetail>(200),
        accepted(
            Operation::new(
                POST,
                "/api/v1/environments/{id}/redeploy",
                "redeploy_environment",
                MEMBER,
                environments::redeploy,
            )
            .summary("Brings the pull request's head live again, with a new run."),
        ),
        accepted(
            Operation::new(
                POST,
                "/api/v1/environments/{id}/destroy",
                "destroy_environment",
                MEMBER,
                environments::destroy,
            )
            .summary("Removes the environment, its machine and its data."),
        ),
        accepted(
            Operation::new(POST, "/api/v1/environments/{id}/sleep", "sleep_environment", MEMBER, environments::sleep)
                .summary("Hibernates the machine; the next visit wakes it."),
        ),
        accepted(
            Operation::new(POST, "/api/v1/environments/{id}/wake", "wake_environment", MEMBER, environments::wake)
                .summary("Wakes the machine."),
        ),
        accepted(
            Operation::new(POST, "/api/v1/environments/{id}/pin", "pin_environment", MEMBER, environments::pin)
                .summary("Keeps the environment past its TTL."),
        ),
        accepted(
            Operation::new(POST, "/api/v1/environments/{id}/unpin", "unpin_environment", MEMBER, environments::unpin)
                .summary("Lets the TTL count again."),
        ),
        Operation::new(GET, "/api/v1/environments/{id}/runs", "list_runs", VIEWER, runs::list)
            .summary("The environment's runs, newest first.")
            .query::<PageQuery>()
            .json::<Page<runs::RunSummary>>(200),
        Operation::new(GET, "/api/v1/environments/{id}/logs", "list_logs", VIEWER, logs::list)
            .summary("The environment's log streams.")
            .json::<Page<logs::LogStreamInfo>>(200),
        Operation::new(GET, "/api/v1/environments/{id}/logs/{stream}", "read_log", VIEWER, logs::of_environment)
            .summary("One log: all there is as text, or live as events.")
            .query::<logs::LogQuery>()
            .other(200, LOG_TYPES),
    ]
}

fn run_operations() -> Vec<Operation> {
    vec![
        Operation::new(GET, "/api/v1/runs/{id}", "get_run", VIEWER, runs::get)
            .summary("One run with its timeline and builds.")
            .json::<runs::RunDetail>(200),
        Operation::new(GET, "/api/v1/runs/{id}/builds", "list_builds", VIEWER, runs::builds)
            .summary("The run's builds.")
            .json::<Page<runs::Build>>(200),
        Operation::new(GET, "/api/v1/builds/{id}", "get_build", VIEWER, runs::build)
            .summary("One build.")
            .json::<runs::Build>(200),
        Operation::new(GET, "/api/v1/builds/{id}/logs", "read_build_log", VIEWER, logs::of_build)
            .summary("A build's log: all there is as text, or live as events.")
            .query::<logs::LogQuery>()
            .other(200, LOG_TYPES),
    ]
}

/// The router that serves all of it.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for operation in operations() {
        let (path, handler) = operation.into_handler();
        router = router.route(path, handler);
    }
    router
        .fallback(|| async { ApiError::NotFound("path") })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(DefaultBodyLimit::max(MAX_JSON_BYTES))
        .layer(from_fn(deadline))
        .layer(from_fn(security_headers))
        .with_state(app)
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn document(State(app): State<App>) -> axum::Json<serde_json::Value> {
    axum::Json(openapi::document(&operations(), &app.public_url))
}

async fn deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(HANDLER_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::TimedOut.into_response(),
    }
}

/// Answers are for programs: no page may frame, sniff or cache them, and nothing in them may run.
async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("cache-control", "no-store"),
    ] {
        headers.entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
    }
    response
}
