//! Stands before moto and enforces what moto does not: client tokens, limits, states that take their time, lists that
//! lag, and refusals that a test asks for. It has prices as well, of which moto knows nothing.

mod images;
mod running;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::task::JoinSet;

use super::pricelist;

pub type Parameters = BTreeMap<String, String>;

/// What a test has it do.
#[derive(Default)]
pub struct Knobs {
    /// Type and zone or subnet in which there is no room.
    pub full: BTreeSet<(String, String)>,
    /// Whether the account may have no more machines.
    pub at_limit: bool,
    /// Actions that are refused for want of a permission.
    pub denied: BTreeSet<&'static str>,
    /// An action that is refused for haste.
    pub hasty: Option<&'static str>,
    /// How many looks do not show a new machine.
    pub hidden: usize,
    /// How many looks do not show a new security group.
    pub hidden_group: usize,
    /// How many looks show a machine on its way to where it goes.
    pub slow: usize,
    /// How many looks do not show a new image.
    pub hidden_image: usize,
    /// How many looks show a new image being made.
    pub slow_image: usize,
    /// Whether machines that bake are done as soon as they run.
    pub bakes_at_once: bool,
    /// The next image fails.
    pub fail_image: bool,
    /// New machines end at once, for this reason.
    pub vanish: Option<&'static str>,
    /// Regions from which nothing comes but a gateway's excuse.
    pub down: BTreeSet<&'static str>,
    /// Regions that the account has not enabled.
    pub closed: BTreeSet<&'static str>,
}

#[derive(Default)]
pub struct World {
    pub knobs: Knobs,
    /// Every action that came, in order; dry runs too.
    pub actions: Vec<String>,
    /// The last request that made a machine.
    pub made: Parameters,
    /// Token and subnet, with what was asked for, the answer, and the machine.
    tokens: HashMap<(String, String), (Parameters, String, String)>,
    ended: BTreeSet<String>,
    /// Machines that powered themselves off.
    by_itself: BTreeSet<String>,
    hidden: HashMap<String, usize>,
    /// The state that is shown instead, and how often.
    passing: HashMap<String, (&'static str, usize)>,
}

/// The proxy of one account; it ends when dropped.
pub struct Enforcer {
    pub url: String,
    inside: Arc<Inside>,
    _serving: JoinSet<()>,
}

#[derive(Clone)]
struct Inside {
    moto: &'static str,
    account: String,
    /// That of the request.
    region: String,
    client: reqwest::Client,
    world: Arc<Mutex<World>>,
}

static ACCOUNTS: AtomicU64 = AtomicU64::new(300_000_000_000);

impl Enforcer {
    pub async fn start(moto: &'static str) -> Self {
        let inside = Arc::new(Inside {
            moto,
            account: ACCOUNTS.fetch_add(1, Ordering::Relaxed).to_string(),
            region: "eu-central-1".to_owned(),
            client: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(600)).build().unwrap(),
            world: Arc::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(handle).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(&inside));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, inside, _serving: serving }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.inside.world()
    }

    /// Asks moto itself, past everything that is enforced.
    pub async fn ask(&self, parameters: &[(&str, &str)]) -> String {
        self.inside.ask(parameters).await
    }

    /// The same in another region.
    pub async fn ask_in(&self, region: &str, parameters: &[(&str, &str)]) -> String {
        self.inside.of(region).ask(parameters).await
    }
}

impl Inside {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for a request of this region.
    fn of(&self, region: &str) -> Self {
        Self { region: region.to_owned(), ..self.clone() }
    }

    async fn ask(&self, parameters: &[(&str, &str)]) -> String {
        let region = &self.region;
        let scope = format!("Credential=AKIATEST/20260101/{region}/ec2/aws4_request, SignedHeaders=host, Signature=0");
        let parameters: Vec<_> = [("Version", "2016-11-15")].iter().chain(parameters).copied().collect();
        let url = reqwest::Url::parse_with_params(self.moto, parameters).unwrap();
        let request = self.client.post(self.moto).header("authorization", format!("AWS4-HMAC-SHA256 {scope}"));
        let request = request.header("x-moto-account-id", &self.account);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.body(url.query().unwrap().to_owned()).send().await.unwrap().text().await.unwrap()
    }

    async fn forward(&self, mut headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
        headers.insert("x-moto-account-id", self.account.parse().unwrap());
        let answer = self.client.post(self.moto).headers(headers).body(body).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn state_of(&self, id: &str) -> String {
        let answer = self.ask(&[("Action", "DescribeInstances"), ("InstanceId.1", id)]).await;
        between(&answer, "<instanceState>", "</instanceState>")
            .map(|state| between(state, "<name>", "<").unwrap().to_owned())
            .unwrap_or_default()
    }
}

async fn handle(State(inside): State<Arc<Inside>>, headers: HeaderMap, body: Bytes) -> Response {
    let inside = inside.of(&region_of(&headers));
    if let Some(target) = headers.get("x-amz-target").map(|target| target.to_str().unwrap().to_owned()) {
        return services(&inside, &target, headers, body).await.into_response();
    }
    let url = format!("http://x/?{}", String::from_utf8_lossy(&body));
    let given: Parameters = reqwest::Url::parse(&url).unwrap().query_pairs().into_owned().collect();
    let action = given.get("Action").cloned().unwrap_or_default();
    if let Some(refusal) = inside.world().refuse(&action, &given, &inside.region) {
        return refusal;
    }
    let outcome = match &*action {
        "RunInstances" => running::run(&inside, headers, body, given).await,
        "DescribeInstances" => describe(&inside, headers, body, &given).await,
        "StartInstances" | "StopInstances" | "TerminateInstances" => {
            change(&inside, &action, headers, body, &given).await
        }
        "CreateImage" => images::create(&inside, &given).await,
        "DeregisterImage" => images::deregister(&inside, headers, body, &given).await,
        "DescribeImages" => {
            let (status, text) = inside.forward(headers, body).await;
            Ok((status, images::show(&inside, text)))
        }
        "DeleteSecurityGroup" => remove_group(&inside, headers, body, &given).await,
        "CreateSecurityGroup" => {
            let (status, text) = inside.forward(headers, body).await;
            if let Some(id) = between(&text, "<groupId>", "<") {
                let mut world = inside.world();
                let looks = world.knobs.hidden_group;
                world.hidden.insert(id.to_owned(), looks);
            }
            Ok((status, text))
        }
        _ => Ok(inside.forward(headers, body).await),
    };
    outcome.map_or_else(|refusal| refusal, IntoResponse::into_response)
}

/// Those that speak JSON.
async fn services(inside: &Inside, target: &str, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let action = target.rsplit('.').next().unwrap_or_default();
    let denied = {
        let mut world = inside.world();
        world.actions.push(action.to_owned());
        world.knobs.denied.contains(action)
    };
    if denied {
        let answer =
            format!("{{\"__type\":\"AccessDeniedException\",\"Message\":\"not authorized to perform: {action}\"}}");
        return (StatusCode::BAD_REQUEST, answer);
    }
    if action == "GetProducts" { pricelist::answer(&body) } else { inside.forward(headers, body).await }
}

/// `…Credential=AKIA…/20260101/eu-central-1/ec2/aws4_request…`.
fn region_of(headers: &HeaderMap) -> String {
    let scope = headers.get("authorization").map_or("", |value| value.to_str().unwrap());
    scope.split('/').nth(2).unwrap_or("eu-central-1").to_owned()
}

type Outcome = Result<(StatusCode, String), Response>;

impl World {
    fn refuse(&mut self, action: &str, given: &Parameters, region: &str) -> Option<Response> {
        self.actions.push(action.to_owned());
        if self.knobs.down.contains(region) {
            return Some((StatusCode::BAD_GATEWAY, "<html><body><h1>Sorry</h1></body></html>").into_response());
        }
        if self.knobs.closed.contains(region) {
            let message = "AWS was not able to validate the provided access credentials";
            let ask = action == "GetCallerIdentity" || action == "AssumeRole";
            return Some(if ask {
                let text = "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code>\
                            <Message>The security token is invalid</Message></Error></ErrorResponse>";
                (StatusCode::FORBIDDEN, text).into_response()
            } else {
                error(401, "AuthFailure", message)
            });
        }
        if self.knobs.denied.contains(action) {
            let message = "You are not authorized. Encoded authorization failure message: 4GIOHlTkIaWHQD0Q0m6XnuM";
            return Some(error(403, "UnauthorizedOperation", message));
        }
        if given.get("DryRun").is_some_and(|dry| dry == "true") {
            return Some(error(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set."));
        }
        if self.knobs.hasty == Some(action) {
            return Some(error(503, "RequestLimitExceeded", "Request limit exceeded."));
        }
        let group = given.get("GroupId.1").or(given.get("GroupId"));
        if let Some(id) = group.filter(|id| self.hides(id)) {
            return Some(error(400, "InvalidGroup.NotFound", &format!("The security group '{id}' does not exist")));
        }
        None
    }

    /// Whether this look does not show it.
    fn hides(&mut self, id: &str) -> bool {
        let left = self.hidden.get_mut(id).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    }
}

async fn describe(inside: &Inside, headers: HeaderMap, body: Bytes, given: &Parameters) -> Outcome {
    if let Some(id) = given.get("InstanceId.1").filter(|id| inside.world().hides(id)) {
        return Err(not_found(id));
    }
    let (status, mut text) = inside.forward(headers, body).await;
    let mut world = inside.world();
    let hidden: Vec<String> = world.hidden.iter().filter(|(_, left)| **left > 0).map(|(id, _)| id.clone()).collect();
    if hidden.iter().any(|id| text.contains(id.as_str()) && world.hides(id)) {
        let empty = "<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>";
        return Ok((status, empty.to_owned()));
    }
    if let Some(reason) = world.knobs.vanish {
        text = text.replace("Client.UserInitiatedShutdown", reason);
    }
    for id in &world.by_itself {
        // Why it stopped is told before its id.
        let Some(at) = text.find(&format!("<instanceId>{id}</instanceId><imageId>")) else { continue };
        let [by_somebody, by_itself] =
            ["User", "Instance"].map(|who| format!("<code>Client.{who}InitiatedShutdown</code>"));
        if let Some(told) = text[..at].rfind(&by_somebody) {
            text.replace_range(told..told + by_somebody.len(), &by_itself);
        }
    }
    for (id, (state, left)) in world.passing.iter_mut().filter(|(_, (_, left))| *left > 0) {
        let Some(at) = text.find(&format!("<instanceId>{id}</instanceId><imageId>")) else { continue };
        let (before, rest) = text.split_at(at);
        let name = between(rest, "<instanceState>", "</instanceState>").unwrap().to_owned();
        text = format!("{before}{}", rest.replacen(&name, &format!("<code>0</code><name>{state}</name>"), 1));
        *left -= 1;
    }
    Ok((status, text))
}

async fn change(inside: &Inside, action: &str, headers: HeaderMap, body: Bytes, given: &Parameters) -> Outcome {
    let id = given.get("InstanceId.1").cloned().unwrap_or_default();
    if inside.world().hides(&id) {
        return Err(not_found(&id));
    }
    let real = inside.state_of(&id).await;
    let shown = {
        let world = inside.world();
        world.passing.get(&id).filter(|(_, left)| *left > 0).map_or(real, |(state, _)| (*state).to_owned())
    };
    let (fits, passing): (&[&str], _) = match action {
        "StartInstances" => (&["stopped", "running", "pending"], "pending"),
        "StopInstances" => (&["running", "stopping", "stopped"], "stopping"),
        _ => (&["pending", "running", "stopping", "stopped", "shutting-down", "terminated"], "shutting-down"),
    };
    if !shown.is_empty() && !fits.contains(&&*shown) {
        let message = format!("The instance '{id}' is not in a state from which it can do that ({shown}).");
        return Err(error(400, "IncorrectInstanceState", &message));
    }
    let (status, text) = inside.forward(headers, body).await;
    if status.is_success() && shown != "terminated" {
        let mut world = inside.world();
        let slow = world.knobs.slow;
        world.passing.insert(id.clone(), (passing, slow));
        if action == "TerminateInstances" {
            world.ended.insert(id);
        }
    }
    Ok((status, text))
}

async fn remove_group(inside: &Inside, headers: HeaderMap, body: Bytes, given: &Parameters) -> Outcome {
    let id = given.get("GroupId").cloned().unwrap_or_default();
    let filter = [("Action", "DescribeNetworkInterfaces"), ("Filter.1.Name", "group-id"), ("Filter.1.Value.1", &*id)];
    if inside.ask(&filter).await.contains("<status>in-use</status>") {
        return Err(error(400, "DependencyViolation", "resource has a dependent object"));
    }
    Ok(inside.forward(headers, body).await)
}

fn not_found(id: &str) -> Response {
    error(400, "InvalidInstanceID.NotFound", &format!("The instance ID '{id}' does not exist"))
}

fn error(status: u16, code: &str, message: &str) -> Response {
    let text = format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
         <RequestID>4f0ad22e-7d9c-4bdf-9e4e-0123456789ab</RequestID></Response>"
    );
    (StatusCode::from_u16(status).unwrap(), text).into_response()
}

pub fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    let rest = &text[text.find(start)? + start.len()..];
    Some(&rest[..rest.find(end)?])
}
